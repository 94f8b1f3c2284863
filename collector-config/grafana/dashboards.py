#!/usr/bin/env python3
"""Write the dashboards, or check that the files beside this one are what it would write.

Needs `pip install "grafana-foundation-sdk==1769699379!11.6.0"`, whose types are those of Grafana 11.6.

    python collector-config/grafana/dashboards.py           write dashboards/*.json
    python collector-config/grafana/dashboards.py --check   exit 1, and say which file differs
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from making import budgets, cost, streams

FOLDER = Path(__file__).resolve().parent / "dashboards"


def made() -> dict[str, str]:
    """The dashboards' files: name → text."""
    files = {}
    for name, each in (("cost", cost), ("budgets", budgets), ("streams", streams)):
        text = json.dumps(each.build().build(), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False)
        files[f"{name}.json"] = text + "\n"
    return files


def main() -> int:
    """Write or check."""
    different = []
    for name, text in made().items():
        path = FOLDER / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        different.append(name)
        if "--check" not in sys.argv[1:]:
            path.write_text(text, encoding="utf-8")
    if "--check" not in sys.argv[1:]:
        print(f"Written: {', '.join(different) or 'nothing, all files are as they should be'}.")
        return 0
    if different:
        print(f"Not what dashboards.py writes: {', '.join(different)}. Run it again.", file=sys.stderr)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
