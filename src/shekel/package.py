"""What this distribution is, and what it instruments."""

from __future__ import annotations

import warnings
from functools import cache

DISTRIBUTION = "opentelemetry-instrumentation-shekel"
OTHER = "shekel"
"""Another distribution on the index that installs a package of the same name."""

_instruments: tuple[str, ...] = ()
_instruments_any: tuple[str, ...] = ("openai >= 3.51", "anthropic >= 2.10")
_supports_metrics = True


@cache
def version() -> str:
    """The version of this distribution; "0" where it runs from a source tree that is not installed."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as of

    try:
        return of(DISTRIBUTION)
    except PackageNotFoundError:
        return "0"


def warn_of_other() -> None:
    """Warn if the other distribution named `shekel` shares this environment: both install files under one name."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        other = distribution(OTHER)
    except PackageNotFoundError:
        return
    warnings.warn(
        f"The distribution {OTHER!r} {other.version} is installed beside {DISTRIBUTION!r}; both install a "
        "package named 'shekel' and overwrite each other's files. Uninstall both, then install the one you want: "
        f"pip uninstall -y {OTHER} {DISTRIBUTION} && pip install {DISTRIBUTION}",
        RuntimeWarning,
        stacklevel=3,
    )
