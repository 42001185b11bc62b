"""PostgreSQL and Valkey with nothing to set up: their programs come in wheels, and we supervise them."""

from baatcheet.platform.embedded.errors import DataFolderInUse, EmbeddedError
from baatcheet.platform.embedded.lock import Addresses
from baatcheet.platform.embedded.process import spawn
from baatcheet.platform.embedded.services import EmbeddedServices, attach

__all__ = ["Addresses", "DataFolderInUse", "EmbeddedError", "EmbeddedServices", "attach", "spawn"]
