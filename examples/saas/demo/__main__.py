"""`python -m examples.saas.demo [--chaos] [--serve]`: exit code 0 only if every check held."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
from pathlib import Path

from corral.errors import CorralError
from examples.saas.demo.screen import Screen
from examples.saas.demo.stage import QUEUES, Missing, Stage, setting_up
from examples.saas.demo.story import Member, all_six, check_nothing_is_left


async def demo(folder: Path, screen: Screen, *, chaos: bool, serve: bool) -> None:
    """Set up, tell the story, check, and stay up if that is wanted.

    Raises:
        Missing: Something did not happen.
    """
    if story := asyncio.current_task():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, story.cancel)
    async with setting_up(folder, screen) as stage:
        async with screen.showing_queues(stage.inspector, QUEUES):
            people = await all_six(stage, chaos=chaos)
            screen.heading("the end")
            await check_nothing_is_left(stage)
        if serve:
            await stay_up(stage, people)
        await stage.stop_worker()


async def stay_up(stage: Stage, people: dict[str, Member]) -> None:
    """Say where everything is, until the worker ends or somebody has had enough."""
    screen = stage.screen
    screen.heading("everything stays up until Ctrl-C")
    screen.print_lines("api", f"{stage.api.base_url}docs")
    screen.print_lines(
        "ada", f"curl -H '{header(people['ada'].headers)}' {stage.api.base_url}account"
    )
    screen.print_lines(
        "operator", f"curl -X POST -H '{header(stage.admin)}' {stage.api.base_url}rollover"
    )
    granted = {"email": people["ada"].email, "role": "admin"}
    await stage.api.put("/board-grants", json=granted, headers=stage.admin)
    token = people["ada"].headers["Authorization"].removeprefix("Bearer ")
    screen.print_lines(
        "board", f"{stage.api.base_url}admin/queues/", f"as ada, with the token {token}"
    )
    screen.print_lines("queues", f"REDIS_URL={os.environ['REDIS_URL']} corral queues")
    screen.print_lines("logs", str(stage.folder / "worker.log"), str(stage.folder / "api.log"))
    await stage.worker.wait()


def header(headers: dict[str, str]) -> str:
    """The one header that lets somebody in."""
    return f"Authorization: {headers['Authorization']}"


def main() -> int:
    """Read the arguments, run, and print what is missing."""
    parser = argparse.ArgumentParser(prog="python -m examples.saas.demo", description=__doc__)
    parser.add_argument(
        "--chaos", action="store_true", help="kill -9 the worker once, in the middle"
    )
    parser.add_argument("--serve", action="store_true", help="stay up afterwards")
    arguments = parser.parse_args()
    screen = Screen()
    with tempfile.TemporaryDirectory(prefix="corral-demo-") as name:
        folder = Path(name)
        try:
            asyncio.run(demo(folder, screen, chaos=arguments.chaos, serve=arguments.serve))
        except (Missing, TimeoutError, CorralError) as error:
            screen.heading("MISSING")
            screen.print_lines("", str(error) or type(error).__name__)
            for log in (folder / "worker.log", folder / "api.log"):
                if log.exists():
                    screen.print_lines(
                        log.stem, *log.read_text("utf-8", "replace").splitlines()[-30:]
                    )
            return 1
        except asyncio.CancelledError:
            return 128 + signal.SIGTERM
        except KeyboardInterrupt:
            return 128 + signal.SIGINT
        finally:
            os.chdir(Path(__file__).parent)  # out of the folder that is about to be removed
    killed = ", although the worker was killed once" if arguments.chaos else ""
    screen.print_lines("ok", f"six queues, driven over HTTP, every effect checked{killed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
