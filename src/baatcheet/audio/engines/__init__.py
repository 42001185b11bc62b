"""What turns speech into text: models at providers, and one on this machine."""

from baatcheet.audio.engines.model import Engine, Engines
from baatcheet.audio.engines.moonshine import NAME, MoonshineEngine, is_installed
from baatcheet.audio.engines.provider import ProviderEngine
from baatcheet.audio.engines.routed import RoutedEngine
from baatcheet.jobs.isolation import Sandbox
from baatcheet.platform.settings import AudioSettings, SettingsError
from baatcheet.providers.catalogue import Catalogue
from baatcheet.providers.routing.router import Router

LOCAL = "local"

__all__ = ["Engine", "Engines", "build_engines"]


def build_engines(
    settings: AudioSettings, catalogue: Catalogue, sandbox: Sandbox, router: Router | None = None
) -> Engines:
    """The engines that `settings` name; when they name none, every provider that transcribes, then the local one.

    `router`: whose routes they may name, too. Raises SettingsError.
    """
    if settings.engines:
        named = [_engine(name, catalogue, sandbox, router) for name in settings.engines]
        return Engines(lambda: named)
    here = [MoonshineEngine(sandbox)] if is_installed() else []

    def found() -> list[Engine]:
        return [
            *(ProviderEngine(provider, models[0]) for provider, models in catalogue.transcribers()),
            *here,
        ]

    return Engines(found)


def _engine(name: str, catalogue: Catalogue, sandbox: Sandbox, router: Router | None) -> Engine:
    if name in {LOCAL, NAME}:
        # Whether it is installed is seen when it is asked: a worker on another machine may have it.
        return MoonshineEngine(sandbox)
    if router is not None and (route := router.routes.get(name)) is not None and route.suits("transcription"):
        return RoutedEngine(name, router.speakers)
    provider_name, _, model = name.partition("/")
    provider = catalogue.named(provider_name)
    if provider is None:
        raise SettingsError(
            f"BAATCHEET_AUDIO_ENGINES: the provider {provider_name!r} is not configured. "
            "Example: BAATCHEET_AUDIO_ENGINES=groq/whisper-large-v3-turbo,local"
        )
    if not model:
        preferred = {one.name: models[0] for one, models in catalogue.transcribers()}
        if provider_name not in preferred:
            raise SettingsError(
                f"BAATCHEET_AUDIO_ENGINES: say which model of {provider_name} transcribes. "
                f"Example: BAATCHEET_AUDIO_ENGINES={provider_name}/whisper-1"
            )
        model = preferred[provider_name]
    return ProviderEngine(provider, model)
