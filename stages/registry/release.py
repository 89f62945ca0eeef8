"""Which version serves, by hand: `image-conductor release`.

--rollback gives the alias back to the version that had it before. --to N gives it to version N. Both hold it there: the
next registered models do not take it, however good they are, until --resume.
"""

import argparse
from collections.abc import Sequence

from stages.params import load_params
from stages.registry.versions import NoSuchVersion, Versions
from stages.run.command import one_line_errors


def main(arguments: Sequence[str] | None = None) -> None:
    """Move the alias, or say where it is.

    Args:
        arguments: of the command line; None takes the process's own.
    """
    parser = argparse.ArgumentParser(
        prog="image-conductor release", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--rollback", action="store_true", help="back to the version that had the alias before")
    what.add_argument("--to", metavar="N", type=int, help="to version N")
    what.add_argument("--resume", action="store_true", help="let the next better model take the alias again")
    options = parser.parse_args(arguments)
    with one_line_errors("release"):
        versions = Versions(load_params())
        before = versions.champion()
        if options.rollback:
            number = versions.go_back()
            versions.hold(f"rolled back from version {before.version if before else 'none'}")
            print(f"{versions.alias}: version {number}")
        elif options.to is not None:
            versions.move_alias(str(options.to))
            versions.hold("set by hand")
            print(f"{versions.alias}: version {options.to}")
        elif options.resume:
            versions.release_hold()
        champion = versions.champion()
        if champion is None:
            raise NoSuchVersion(f"no version of {versions.name} has the alias {versions.alias}; run `make repro`")
        held = versions.held()
        state = f"held ({held}) until `image-conductor release --resume`" if held else "the next better model takes it"
        print(f"{versions.name} version {champion.version} has the alias {versions.alias}; {state}")
