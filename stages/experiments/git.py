"""What git knows: files in commits, and DVC's experiments."""

import os
import subprocess

from stages.common.errors import ExpectedError


def file_in(commit: str, path: str) -> str:
    """A file's text in a commit; the path starts at this folder, which may lie below git's root."""
    return git("show", f"{commit}:./{path}")


def bytes_in(commit: str, path: str) -> bytes:
    """A file's content in a commit, likewise."""
    return _git("show", f"{commit}:./{path}")


def git(*arguments: str, stdin: str = "", **environment: str) -> str:
    """What a git command prints, as text.

    Raises:
        ExpectedError: It failed, or there is no git.
    """
    return _git(*arguments, stdin=stdin, **environment).decode("utf-8")


def _git(*arguments: str, stdin: str = "", **environment: str) -> bytes:
    """What a git command prints.

    Raises:
        ExpectedError: It failed, or there is no git.
    """
    try:
        result = subprocess.run(  # noqa: S603
            ["git", *arguments],  # noqa: S607
            input=stdin.encode("utf-8"),
            env=os.environ | environment,
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        raise ExpectedError("git is not on the PATH; install it") from None
    if result.returncode:
        said = " ".join(result.stderr.decode("utf-8", errors="replace").split())
        raise ExpectedError(f"git {arguments[0]} failed: {said or result.returncode}")
    return result.stdout


def require_full_clone() -> None:
    """Stop in a shallow clone: DVC 3.67 cannot fetch an experiment into it from a temporary copy, and says nothing.

    Raises:
        ExpectedError: The clone is shallow.
    """
    if git("rev-parse", "--is-shallow-repository").strip() == "true":
        raise ExpectedError("this clone is shallow, and DVC would lose the finished runs; run git fetch --unshallow")


def experiments_in_git() -> dict[str, list[str]]:
    """The commits of DVC's experiments by name; one name may be there once for each commit that it started from."""
    found: dict[str, list[str]] = {}
    listing = git("for-each-ref", "--sort=-creatordate", "--format=%(objectname) %(refname)", "refs/exps")
    for line in listing.splitlines():
        commit, _, reference = line.partition(" ")
        parts = reference.split("/")
        if len(parts) == 5:  # refs/exps/<2 digits>/<38 digits>/<name>; DVC's own are elsewhere
            found.setdefault(parts[4], []).append(commit)
    return found
