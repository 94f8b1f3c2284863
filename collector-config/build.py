#!/usr/bin/env python3
"""Build the programs behind the cost views from source: collector (builder-config.yaml), Jaeger, Prometheus, promtool.

Needs Go and its module proxy, nothing else. Each program is kept under a name that holds a hash of its versions,
outside the checkout, in `$SHEKEL_STACK`, else `$XDG_CACHE_HOME/shekel-stack`, else `~/.cache/shekel-stack`: what is
there is not built again, and a new version never overwrites an old one. A program appears whole or not at all.

    python collector-config/build.py              build what is missing (10 to 20 minutes on two cores, once)
    python collector-config/build.py otelcol      only this one
    python collector-config/build.py --where      where they are kept; builds nothing
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

BUILDER = "go.opentelemetry.io/collector/cmd/builder@v0.164.0"
BUILDER_CONFIG = Path(__file__).resolve().with_name("builder-config.yaml")


@dataclass(frozen=True, slots=True)
class Source:
    """A program that is a command of a Go module.

    Attributes:
        module, version: the module that has it.
        package: the command's package.
        tags: build tags.
    """

    module: str
    version: str
    package: str
    tags: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What another build of would be the same program."""
        return repr(self)


# Prometheus without its service discoveries and with its pages left out: the tests scrape fixed addresses.
_PROMETHEUS = "github.com/prometheus/prometheus"
_LEAN = ("netgo", "remove_all_sd", "enable_static_sd_provider")
SOURCES = {
    "jaeger": Source("github.com/jaegertracing/jaeger", "v1.76.0", "github.com/jaegertracing/jaeger/cmd/jaeger"),
    "prometheus": Source(_PROMETHEUS, "v0.313.5", f"{_PROMETHEUS}/cmd/prometheus", _LEAN),
    "promtool": Source(_PROMETHEUS, "v0.313.5", f"{_PROMETHEUS}/cmd/promtool", _LEAN),
}
PROGRAMS = ("otelcol", *SOURCES)


class Unavailable(Exception):
    """A program is not there and cannot be built here; the message is one sentence that says why."""


def root() -> Path:
    """The folder that the programs are kept in."""
    chosen = os.environ.get("SHEKEL_STACK")
    if chosen:
        return Path(chosen).expanduser().absolute()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "shekel-stack"


def place(program: str) -> Path:
    """Where a program is kept, whether or not it is there.

    Args:
        program: one of `PROGRAMS`.
    """
    key = BUILDER + BUILDER_CONFIG.read_text() if program == "otelcol" else SOURCES[program].key
    return root() / f"{program}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def build(program: str, caches: Path | None = None) -> Path:
    """Build a program if it is not there.

    Args:
        program: one of `PROGRAMS`.
        caches: where Go may keep what another program of the same module needs again; nowhere by default.

    Returns:
        where it is.

    Raises:
        Unavailable: it is not there, and Go is missing or failed.
    """
    target = place(program)
    if target.exists():
        return target
    _need_go(program)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".building-", ignore_cleanup_errors=True) as temporary:
        work = Path(temporary)
        go = _Go(work, caches or work)
        say(f"Building {program} into {target} …")
        if program == "otelcol":
            _collector_sources(go)
            package, tags = ".", tuple[str, ...]()
        else:
            source = SOURCES[program]
            _require(go, source)
            package, tags = source.package, source.tags
        go.run("build", "-mod=mod", "-trimpath", "-ldflags=-s -w", f"-tags={','.join(tags)}", "-o", "built", package)
        (go.module / "built").rename(target)
    return target


def _need_go(program: str) -> None:
    if shutil.which("go") is None:
        raise Unavailable(f"{program} is not built yet, and Go is needed to build it: install Go, then run {__file__}.")


class _Go:
    """The go command, in a module of its own. Its caches are ours to remove, unless the user has set some."""

    def __init__(self, work: Path, caches: Path) -> None:
        self.module = work / "module"
        self.module.mkdir()
        self._environment = {
            **os.environ,
            "GOPATH": os.environ.get("GOPATH") or str(caches / "path"),
            "GOCACHE": os.environ.get("GOCACHE") or str(caches / "cache"),
            "GOTMPDIR": str(work),
            "GOFLAGS": "-modcacherw -buildvcs=false",
            "GOWORK": "off",
            "CGO_ENABLED": "0",
        }

    def run(self, *arguments: str) -> str:
        """Run it in the module.

        Raises:
            Unavailable: it failed; with the end of what it said.
        """
        done = subprocess.run(
            ["go", *arguments], cwd=self.module, env=self._environment, text=True, capture_output=True, check=False
        )
        if done.returncode:
            said = " | ".join(done.stderr.strip().splitlines()[-8:])
            raise Unavailable(f"`go {' '.join(arguments)}` failed: {said}")
        return done.stdout


def _collector_sources(go: _Go) -> None:
    """Let the builder write main.go and components.go, and give the module just the parts' own requirements.

    The builder's own `go mod tidy` fails here, because of a module that only the tests of a part import.
    """
    config = BUILDER_CONFIG.read_text()
    parts = re.findall(r"^\s+- gomod: (\S+) (v\S+)$", config, re.MULTILINE)
    versions = dict(parts)
    # The collector itself has the version of its parts; its configuration reader that of the providers.
    core = f"v{_field(config, 'version')}"
    versions["go.opentelemetry.io/collector/otelcol"] = core
    versions["go.opentelemetry.io/collector/service"] = core
    sources = go.module / "generated"
    go.run(
        *("run", BUILDER, "--config", str(BUILDER_CONFIG), "--output-path", str(sources)),
        *("--skip-strict-versioning", "--skip-get-modules", "--skip-compilation"),
    )
    for path in sources.glob("*.go"):
        path.rename(go.module / path.name)
    required = "".join(f"\t{module} {version}\n" for module, version in sorted(versions.items()))
    (go.module / "go.mod").write_text(f"module shekel.example/otelcol\n\ngo 1.25.0\n\nrequire (\n{required})\n")


def _require(go: _Go, source: Source) -> None:
    """A module that requires this one, with its replacements and checksums: those of a dependency do not count."""
    (go.module / "go.mod").write_text("module shekel.example/none\n")
    found = json.loads(go.run("mod", "download", "-json", f"{source.module}@{source.version}"))
    original = Path(found["Dir"])
    mod = json.loads(go.run("mod", "edit", "-json", str(original / "go.mod")))
    lines = [f"module shekel.example/{source.package.rsplit('/', 1)[-1]}", "", f"go {mod['Go']}", ""]
    lines.append(f"require {source.module} {source.version}")
    for each in mod.get("Replace") or ():
        old, new = each["Old"], each["New"]
        lines.append(f"replace {old['Path']} => {new['Path']} {new['Version']}")
    (go.module / "go.mod").write_text("\n".join(lines) + "\n")
    shutil.copyfile(original / "go.sum", go.module / "go.sum")


def _field(config: str, name: str) -> str:
    found = re.search(rf"^  {name}: (\S+)$", config, re.MULTILINE)
    if found is None:
        raise Unavailable(f"{BUILDER_CONFIG} has no dist.{name}.")
    return found[1]


def say(text: str) -> None:
    """Tell whoever waits."""
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Build the programs behind the cost views.")
    parser.add_argument("programs", nargs="*", metavar="program", help=f"of {', '.join(PROGRAMS)}; all by default")
    parser.add_argument("--where", action="store_true", help="print where they are kept, and build nothing")
    arguments = parser.parse_args()
    unknown = [each for each in arguments.programs if each not in PROGRAMS]
    if unknown:
        parser.error(f"{unknown[0]} is none of {', '.join(PROGRAMS)}")
    if arguments.where:
        print(*([place(each) for each in arguments.programs] or [root()]), sep="\n")
        return 0
    try:
        for together in (("otelcol",), ("jaeger",), ("prometheus", "promtool")):
            _build_together([program for program in together if program in (arguments.programs or PROGRAMS)])
    except Unavailable as problem:
        say(str(problem))
        return 1
    return 0


def _build_together(programs: list[str]) -> None:
    """Programs of one module: what Go keeps of it, some gigabytes, is there until the last of them is built."""
    missing = [program for program in programs if not place(program).exists()]
    if missing:
        _need_go(missing[0])
        root().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root(), prefix=".caches-", ignore_cleanup_errors=True) as caches:
            for program in missing:
                build(program, Path(caches))
    for program in programs:
        print(place(program))


if __name__ == "__main__":
    sys.exit(main())
