"""Which template a container starts from, if any. Never an error: without one the machine boots."""

from pathlib import Path

from shim.config import Config
from shim.errors import NotFoundError, TemplateError
from shim.log import Logger
from shim.template.store import Store, Template, name_of
from shim.vm.machine import Machine


def open_store(config: Config) -> Store:
    """The templates of this installation."""
    return Store(Path(config.runtime.cache_dir, "templates"), limit_mib=config.template.limit_mib)


def choose(config: Config, machine: Machine, namespace: str, log: Logger) -> Template | None:
    """The template for a container of that namespace, open; None where it is to boot. The log says why."""
    if config.template.mode == "off":
        return None
    owner = namespace if config.template.mode == "per-namespace" else ""
    try:
        return open_store(config).open(name_of(machine.fingerprint(), owner))
    except NotFoundError as error:
        log.info("cold boot: no template for this machine", reason=error.message, hint="run qemubox template build")
    except TemplateError as error:
        log.warning("cold boot: the template is not used", reason=error.message, hint=error.hint)
    return None
