"""The keys that sign baggage: where they come from, how they are changed, and that nobody is shown them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import shekel
from shekel import faults
from shekel.scopes.keyring import REFRESH, Keyring, of_environment, of_file, of_program
from shekel.scopes.outside import Outside, Trust

NEW, OLD = "n" * 32, "o" * 32


class TestProgram:
    def test_the_first_signs_and_all_are_accepted(self) -> None:
        ring = of_program([NEW, OLD.encode()])
        assert ring.signing.secret == NEW.encode()
        old = of_program(OLD).signing
        found = ring.find(old.id)
        assert found is not None
        assert found.secret == OLD.encode()
        assert ring.find("00000000") is None

    def test_a_function_is_asked_again_and_what_it_raises_leaves_the_keys(self) -> None:
        now = [0.0]
        given: list[Any] = [[OLD]]

        def keys() -> Any:
            if given[0] is None:
                raise ConnectionError("the vault is away")
            return given[0]

        ring = Keyring(keys, clock=lambda: now[0])
        given[0] = [NEW, OLD]
        assert ring.signing.secret == OLD.encode()
        now[0] += REFRESH
        assert ring.signing.secret == NEW.encode()
        before = faults.counted["read the keys of baggage again"]
        for bad in (None, [], ["short"], [7]):
            given[0] = bad
            now[0] += REFRESH
            assert ring.signing.secret == NEW.encode()
        assert faults.counted["read the keys of baggage again"] == before + 4

    @pytest.mark.parametrize(
        ("keys", "why"), [([], "no key"), ("short", "has 5 bytes, and 32"), ([7], "text or bytes, not a int")]
    )
    def test_what_is_no_key_is_refused_with_the_remedy(self, keys: Any, why: str) -> None:
        with pytest.raises(ValueError, match=f"{why}.*openssl rand -hex 32"):
            shekel.configure(baggage_keys=keys)

    def test_no_text_shows_a_key(self) -> None:
        ring = of_program([NEW])
        assert "nnnn" not in f"{ring!r}{ring.signing!r}{ring.signing.id}{vars(ring)}"
        with pytest.raises(ValueError, match="bytes") as refused:
            of_program("s3cret" * 5)
        assert "s3cret" not in str(refused.value)


class TestFile:
    def test_one_on_each_line_and_read_again_where_it_changes(self, tmp_path: Path) -> None:
        path = tmp_path / "keys"
        path.write_text(f"# of May\n{OLD}\n\n")
        path.chmod(0o400)
        ring = of_file(path)
        now = ring._looked
        ring._clock = lambda: now
        path.chmod(0o600)
        path.write_text(f"{NEW}\n{OLD}\n")
        now += REFRESH
        assert ring.signing.secret == NEW.encode()
        path.unlink()
        now += REFRESH
        assert ring.signing.secret == NEW.encode(), "a file that is away leaves the keys"

    def test_one_that_is_missing_a_folder_no_text_or_empty_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"none' cannot be read \(No such file"):
            of_file(tmp_path / "none")
        with pytest.raises(ValueError, match="cannot be read"):
            of_file(tmp_path)
        path = tmp_path / "keys"
        path.touch(mode=0o600)
        with pytest.raises(ValueError, match="no key"):
            of_file(path)
        path.write_bytes(b"\xff" * 40)
        with pytest.raises(ValueError, match="is no text"):
            of_file(path)

    @pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
    @pytest.mark.parametrize("mode", [0o644, 0o604, 0o602])
    def test_one_that_everybody_may_read_or_write_is_refused(self, tmp_path: Path, mode: int) -> None:
        path = tmp_path / "keys"
        path.write_text(NEW)
        path.chmod(mode)
        with pytest.raises(ValueError, match=rf"mode {mode:04o}.*chmod 0400") as refused:
            of_file(path)
        assert "nnn" not in str(refused.value)


class TestEnvironment:
    def test_keys_separated_by_commas_or_a_file_but_not_both(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert of_environment() is None
        monkeypatch.setenv("SHEKEL_BAGGAGE_KEY", f"{NEW}, {OLD}")
        ring = of_environment()
        assert ring is not None
        assert ring.signing.secret == NEW.encode()
        monkeypatch.setenv("SHEKEL_BAGGAGE_KEY_FILE", str(tmp_path / "keys"))
        with pytest.raises(ValueError, match="both set"):
            of_environment()

    def test_it_says_whom_to_trust(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SHEKEL_TRUST", "signed")
        monkeypatch.setenv("SHEKEL_BAGGAGE_KEY", NEW)
        fresh = Outside()
        fresh.read_environment()
        assert fresh.trust is Trust.SIGNED
        assert fresh.keys is not None

    @pytest.mark.parametrize(
        ("trust", "why"), [("signed", "needs a key"), ("everybody", "must be 'none', 'signed' or 'all'")]
    )
    def test_a_trust_that_is_none_or_has_no_key_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, trust: str, why: str
    ) -> None:
        monkeypatch.setenv("SHEKEL_TRUST", trust)
        with pytest.raises(ValueError, match=why):
            Outside().read_environment()
        with pytest.raises(ValueError, match=why):
            Outside().configure(trust=trust)

    @pytest.mark.parametrize("lifetime", [0, -1, 90_000, True, "5 min"])
    def test_a_lifetime_that_is_none_is_refused(self, lifetime: Any) -> None:
        with pytest.raises(ValueError, match="baggage_lifetime"):
            shekel.configure(baggage_lifetime=lifetime)

    @pytest.mark.parametrize("use", ["ShekelInstrumentor().instrument()", "configure(policies=[])"])
    def test_a_missing_file_is_said_where_a_program_begins(self, tmp_path: Path, use: str) -> None:
        result = _python(f"from shekel import *; {use}", tmp_path / "none")
        assert result.returncode == 1
        assert "ValueError: the key file" in result.stderr
        assert "cannot be read (No such file or directory)." in result.stderr

    def test_a_scope_alone_goes_on_unsigned_and_says_so_once(self, tmp_path: Path) -> None:
        program = """
from shekel import scope
from opentelemetry import baggage
for _ in range(2):
    with scope(user_id="ada"):
        print(dict(baggage.get_all()))
"""
        result = _python(program, tmp_path / "none")
        assert result.stdout == "{'user.id': 'ada'}\n" * 2
        assert result.stderr.count("No baggage is signed") == 1
        assert "cannot be read" in result.stderr


def _python(program: str, file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "SHEKEL_BAGGAGE_KEY_FILE": str(file)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
