"""Everything that can go wrong with a CNI network, as one tree.

    CniError
    ├── ConfigError          a network configuration that cannot be used; the file is named
    │   └── NetworkNotFound  no configuration in the directory has the name
    ├── ArgumentError        a container id, interface name or namespace that no plugin may be given
    ├── UnsupportedError     the network's cniVersion has no such command
    ├── CacheError           the result of an ADD cannot be kept, or is not there for a CHECK
    ├── LockTimeout          another chain had the lock for too long
    └── PluginFailure        one plugin of the chain; it, its network, that one's file and the command are named
        ├── PluginMissing    no such program in the plugin directories, or one that cannot be executed
        ├── PluginError      it said so itself: its code, message and details
        ├── PluginGarbage    what it printed is no result, or was too much
        ├── PluginEnded      it failed without a word, or was killed
        └── PluginTimeout    it ran past its deadline and was ended

`message` is one line that names what failed with the value; `hint`, where there is one, says what to do.
"""

# What the specification says of codes for which there is something to do (SPEC.md, "Error").
_HINTS = {
    1: "give the network a cniVersion that the plugin supports, or install newer plugins",
    11: "the plugin says that trying again later may help",
}


class CniError(Exception):
    """Base of all errors of this library."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ConfigError(CniError):
    """A network configuration that cannot be read, or says what cannot be."""


class NetworkNotFound(ConfigError):
    """No network of that name is configured."""


class ArgumentError(CniError):
    """What was asked for can be given to no plugin."""


class UnsupportedError(CniError):
    """The version of the configuration does not have the command."""


class CacheError(CniError):
    """The result of an ADD could not be written, read or found."""


class LockTimeout(CniError):
    """The host-wide lock was not to be had within the deadline."""


class PluginFailure(CniError):
    """One plugin of a network failed.

    `plugin` is its type, `network` the name and `source` the file of the configuration, `command` what it was to do.
    """

    def __init__(self, plugin: str, network: str, source: str, command: str, problem: str, *, hint: str = "") -> None:
        super().__init__(f"CNI {command} of network {network!r} ({source}): plugin {plugin!r} {problem}", hint=hint)
        self.plugin = plugin
        self.network = network
        self.source = source
        self.command = command


class PluginMissing(PluginFailure):
    """There is no such program, or it cannot be executed."""


class PluginError(PluginFailure):
    """The plugin answered with an error object; `code`, `msg` and `details` are its own."""

    def __init__(
        self, plugin: str, network: str, source: str, command: str, *, code: int, msg: str, details: str
    ) -> None:
        words = "; ".join(part for part in (msg, details) if part) or "no message"
        super().__init__(
            plugin, network, source, command, f"failed with code {code}: {words}", hint=_HINTS.get(code, "")
        )
        self.code = code
        self.msg = msg
        self.details = details


class PluginGarbage(PluginFailure):
    """What the plugin printed is not what the specification asks for."""


class PluginEnded(PluginFailure):
    """The plugin failed and printed no error object, or a signal ended it."""


class PluginTimeout(PluginFailure):
    """The plugin was ended because its time was over."""
