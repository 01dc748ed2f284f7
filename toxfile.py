"""tox, extended by one thing: every plugin's folder is known to it without being listed anywhere.

`plugin-<queue>` holds the core as a wheel, the plugin as a wheel and what the plugin's group `test`
names, and runs the plugin's own tests: what passes there passes where somebody installs the plugin.
`dev` gets all of `plugins/`, editable, `bench`, `board`, `demo` and `saas` get them as wheels; a
plugin of `examples/` is written as by somebody else, and has an environment of its own only. tox
loads this file by its name; what does not depend on the folders is in `tox.ini`.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from tox.config.loader.memory import MemoryLoader
from tox.config.types import Command, EnvList
from tox.plugin import impl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tox.config.sets import ConfigSet
    from tox.session.state import State

ROOT = Path(__file__).parent
PREFIX = "corral-"


def plugin_folders() -> dict[str, Path]:
    """The folders that hold a plugin's distribution, by the name of their environment."""
    return {
        f"plugin-{folder.name.removeprefix(PREFIX)}": folder
        for above in ("plugins", "examples")
        for folder in distributions(above)
    }


def distributions(above: str) -> list[Path]:
    """The folders of plugins in a folder of the checkout."""
    return [project.parent for project in sorted((ROOT / above).glob(f"{PREFIX}*/pyproject.toml"))]


def editable(folders: Iterable[Path]) -> Command:
    """Install plugins and what their tests need, so that an edited file is the one that runs."""
    install = ["uv", "pip", "install", "--quiet"]
    for folder in folders:
        install += ["--editable", str(folder), *test_group(folder)]
    return Command(install)


def installed(folders: Iterable[Path]) -> Command:
    """Install plugins after the core, because no registry has the core of this tree."""
    install = ["uv", "pip", "install", "--quiet"]
    for folder in folders:
        install += ["--reinstall-package", folder.name, str(folder)]
    return Command(install)


def lowest(folders: Iterable[Path]) -> list[Command]:
    """Install core and plugins on the lowest versions that they allow, then what tests need.

    What a test tool needs of its own does not raise those versions again: they are written down in
    between, and the second installation keeps to them.
    """
    extras = "board,embedded,metrics,otel,sql,testing,uvloop"
    install = ["uv", "pip", "install", "--quiet", "--resolution", "lowest-direct"]
    tools = ["uv", "pip", "install", "--quiet", "--group", f"{ROOT / 'pyproject.toml'}:test"]
    for folder in folders:
        install += ["--reinstall-package", folder.name, str(folder)]
        tools += test_group(folder)
    keep = 'kept="$VIRTUAL_ENV/lowest.txt"; uv pip freeze | grep == | tee "$kept"'
    return [
        Command([*install, "--reinstall-package", "corral", f"{ROOT}[{extras}]"]),
        Command(["sh", "-c", f'{keep}; UV_CONSTRAINT="$kept" exec "$@"', "sh", *tools]),
    ]


def test_group(folder: Path) -> list[str]:
    """The installer's arguments for what a plugin's tests need, where its project says so."""
    project = folder / "pyproject.toml"
    declared = tomllib.loads(project.read_text("utf-8")).get("dependency-groups", {})
    return ["--group", f"{project}:test"] if "test" in declared else []


def settings_of(folder: Path) -> dict[str, object]:
    """What `tox.ini` would say about a plugin's environment, were it written there."""
    return {
        "description": f"the plugin {folder.name} on the core's wheel: its types and its own tests",
        "package": "wheel",
        "extras": [
            "metrics",
            "sql",
            "testing",
        ],  # metrics: mypy follows what a plugin imports of the core
        "dependency_groups": ["plugin"],
        "commands_pre": [Command([*installed([folder]).args, *test_group(folder)])],
        "commands": [
            Command(["mypy", str(folder / "src")]),
            Command(
                [
                    "python",
                    str(ROOT / ".ci" / "run_tests.py"),
                    "-c",
                    str(ROOT / "pyproject.toml"),
                    f"{folder}/tests",
                ]
            ),
        ],
    }


@impl
def tox_extend_envs() -> Iterable[str]:
    """Make the environments known, for `tox -e` and `tox list`."""
    return plugin_folders()


@impl
def tox_add_core_config(core_conf: ConfigSet, state: State) -> None:
    """Configure the environments, and place them behind those of `tox.ini` in a bare `tox`."""
    plugins = plugin_folders()
    for name, folder in plugins.items():
        state.conf.memory_seed_loaders[name].append(MemoryLoader(**settings_of(folder)))
    ours = distributions("plugins")
    state.conf.memory_seed_loaders["lowest"].append(
        MemoryLoader(commands_pre=lowest(plugins.values()))
    )
    state.conf.memory_seed_loaders["dev"].append(MemoryLoader(commands=[editable(ours)]))
    for name in ("bench", "board", "demo", "saas"):
        state.conf.memory_seed_loaders[name].append(MemoryLoader(commands_pre=[installed(ours)]))
    listed = core_conf.loaders[0].load_raw("env_list", state.conf, None)
    core_conf.loaders.insert(0, MemoryLoader(env_list=EnvList([*str(listed).split(), *plugins])))
