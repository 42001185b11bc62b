"""What administrators and jobs do with providers' keys, put together."""

from collections.abc import Mapping
from datetime import timedelta

import aiohttp

from baatcheet.attachments.ocr import ocr_space
from baatcheet.keys.probing import Probe, Probed
from baatcheet.keys.ring import KeyRing
from baatcheet.keys.rotation.jobs import KeeperParts
from baatcheet.keys.rotation.machine import Pace, RotationParts
from baatcheet.keys.rotation.provisioners import (
    OPENAI_URL,
    OPENROUTER_URL,
    AdminKey,
    OpenAIKeys,
    OpenRouterKeys,
    Provisioner,
)
from baatcheet.keys.secret import SecretKey
from baatcheet.keys.service import Keys
from baatcheet.platform.database import Database
from baatcheet.platform.settings import SecretSettings, Settings
from baatcheet.providers.catalogue import Catalogue, UnknownProvider
from baatcheet.providers.model import ProviderError

# Where the keys stand that make keys.
PROVISIONING = "openrouter_provisioning"
ADMIN = "openai_admin"


def probe_by(catalogue: Catalogue, session: aiohttp.ClientSession, ocr_space_url: str) -> Probe:
    """Asks a provider by its cheapest call."""

    async def probe(provider: str, key: SecretKey) -> Probed:
        if provider == ocr_space.PROVIDER:
            return await ocr_space.probe(session, ocr_space_url, key)
        try:
            models = await catalogue.probe(provider, key)
        except UnknownProvider:
            return Probed("unknown", f"There is no way to ask {provider} about a key.")
        except ProviderError as error:
            return Probed("refused" if error.kind == "unauthorized" else "unknown", error.message)
        return Probed("good", f"It lists {models} models.")

    return probe


def build_provisioners(
    settings: SecretSettings, ring: KeyRing, session: aiohttp.ClientSession
) -> Mapping[str, Provisioner]:
    """The key APIs that there are; each is available once there is a key for it. Raises SettingsError."""

    def first(name: str) -> AdminKey:
        return lambda: next(iter(ring.current(name)), None)

    return {
        "openrouter": OpenRouterKeys(
            session, first(PROVISIONING), settings.openrouter_keys_url or OPENROUTER_URL
        ),
        "openai": OpenAIKeys(
            session, first(ADMIN), settings.openai_project, settings.openai_admin_url or OPENAI_URL
        ),
    }


def build_keys(
    settings: Settings, db: Database, ring: KeyRing, catalogue: Catalogue, session: aiohttp.ClientSession
) -> Keys:
    """What administrators ask. Raises SettingsError."""
    secrets, makers = settings.secrets, build_provisioners(settings.secrets, ring, session)

    def rotates(provider: str) -> bool:
        maker = makers.get(provider)
        return provider in secrets.rotate if secrets.rotate else maker is not None and maker.available

    return Keys(
        db,
        ring,
        probe_by(catalogue, session, settings.attachments.ocr_space_url),
        daily=lambda provider: ring.pools.limits(provider).requests_per_day,
        rotating=rotates,
        max_age=timedelta(days=secrets.max_age_days),
    )


def build_keeper(
    settings: Settings, db: Database, ring: KeyRing, catalogue: Catalogue, session: aiohttp.ClientSession
) -> KeeperParts:
    """What the jobs of keys take. Raises SettingsError."""
    secrets = settings.secrets
    parts = RotationParts(
        db,
        ring,
        probe_by(catalogue, session, settings.attachments.ocr_space_url),
        build_provisioners(secrets, ring, session),
        Pace(watch=secrets.watch_seconds),
    )
    # What makes keys is replaced by whoever has given it.
    known = tuple(one for one in ring.providers if one not in {PROVISIONING, ADMIN})
    return KeeperParts(parts, lambda: known, secrets.rotate, timedelta(days=secrets.max_age_days))
