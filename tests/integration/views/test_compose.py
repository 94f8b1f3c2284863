"""compose.yaml and what it mounts: valid, pinned to what is tested, private, started in order.

No container runs here. The file is checked by the compose specification's own JSON schema (as `check-jsonschema` ships
it), by the rules below, and by the real programs, which are given each service's configuration and variables.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ..programs import CONFIG, PROMETHEUS_FEATURES, ROOT, binary, build, get
from .conftest import Run


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


COMPOSE = read(CONFIG / "compose.yaml")
SERVICES: dict[str, Any] = COMPOSE["services"]
TAGS = {image: tag for each in SERVICES.values() if "image" in each for image, _, tag in [each["image"].partition(":")]}


class TestForm:
    def test_it_is_valid_by_the_compose_specification(self) -> None:
        checker = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
        done = subprocess.run([*checker, str(CONFIG / "compose.yaml")], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def test_the_schema_refuses_what_is_wrong(self, tmp_path: Path) -> None:
        wrong = tmp_path / "compose.yaml"
        wrong.write_text((CONFIG / "compose.yaml").read_text().replace("image: busybox", "imagine: busybox"))
        checker = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
        assert subprocess.run([*checker, str(wrong)], capture_output=True).returncode == 1

    def test_every_port_is_on_this_machine_only(self) -> None:
        ports = [port for each in SERVICES.values() for port in each.get("ports", ())]
        assert len(ports) >= 5
        assert all(port.startswith("127.0.0.1:") for port in ports)

    def test_data_is_in_volumes_and_what_is_mounted_exists(self) -> None:
        named = set()
        for each in SERVICES.values():
            for volume in each.get("volumes", ()):
                source, _, rest = volume.partition(":")
                if source.startswith("."):
                    assert (CONFIG / source).exists(), source
                    assert rest.endswith(":ro"), volume
                else:
                    named.add(source)
        assert named == set(COMPOSE["volumes"])

    def test_it_starts_in_order(self) -> None:
        conditions = {name: each.get("depends_on", {}) for name, each in SERVICES.items()}
        assert conditions["collector"]["jaeger"]["condition"] == "service_healthy"
        assert conditions["collector-ready"]["collector"]["condition"] == "service_started"
        for name in ("prometheus", "app"):
            assert conditions[name]["collector-ready"]["condition"] == "service_completed_successfully"
        assert {each["condition"] for each in conditions["grafana"].values()} == {"service_healthy"}
        for needed in (each for all_ in conditions.values() for each in all_.items()):
            if needed[1]["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[needed[0]]


class TestVersions:
    """Pinned, and equal to those that the tests run."""

    def test_every_image_has_a_whole_version(self) -> None:
        assert all(re.fullmatch(r"v?\d+\.\d+\.\d+", tag) for tag in TAGS.values()), TAGS

    def test_the_collector_is_the_one_that_is_built(self) -> None:
        config = read(CONFIG / "builder-config.yaml")
        assert TAGS["otel/opentelemetry-collector-contrib"] == config["dist"]["version"]
        built = subprocess.run([str(binary("otelcol")), "--version"], capture_output=True, text=True).stdout
        assert config["dist"]["version"] in built

    def test_prometheus_is_the_one_that_is_built(self) -> None:
        # As a Go module, Prometheus 3.13.5 is v0.313.5.
        _, major, minor, patch = re.fullmatch(r"(v0)\.(\d)(\d+)\.(\d+)", build.SOURCES["prometheus"].version).groups()  # type: ignore[union-attr]
        assert TAGS["prom/prometheus"] == f"v{major}.{minor}.{patch}"

    def test_jaeger_is_the_one_that_is_built(self) -> None:
        # Jaeger 2.13.0 is the Go module's v1.76.0: its changelog has both in one heading.
        assert (TAGS["jaegertracing/jaeger"], build.SOURCES["jaeger"].version) == ("2.13.0", "v1.76.0")
        assert "Jaeger 2.13" in (CONFIG / "jaeger" / "jaeger.yaml").read_text()

    def test_grafana_is_the_one_whose_types_the_dashboards_have(self) -> None:
        installed = pytest.importorskip("importlib.metadata").version("grafana-foundation-sdk")
        assert installed.partition("!")[2].rsplit(".", 1)[0] == TAGS["grafana/grafana"].rsplit(".", 1)[0]

    def test_the_example_has_a_python_that_is_tested(self) -> None:
        [version] = re.findall(r"FROM python:(\d+\.\d+\.\d+)-", (CONFIG / "example" / "Dockerfile").read_text())
        assert version.startswith("3.11.")


class TestConfiguration:
    def test_every_variable_is_one_that_its_service_reads(self) -> None:
        files = {
            "jaeger": CONFIG / "jaeger" / "jaeger.yaml",
            "collector": CONFIG / "collector.yaml",
            "grafana": CONFIG / "grafana" / "provisioning" / "datasources" / "shekel.yaml",
        }
        for service, file in files.items():
            text = file.read_text()
            for name in SERVICES[service]["environment"]:
                assert name.startswith("GF_") or re.search(rf"\$\{{(env:)?{name}\b", text), (service, name)

    def test_collector_and_jaeger_accept_it(self, tmp_path: Path) -> None:
        jaeger = (CONFIG / "jaeger" / "jaeger.yaml", {"JAEGER_UI_FILE": str(CONFIG / "jaeger" / "ui-config.json")})
        for program, service, (file, more) in (
            ("otelcol", "collector", (CONFIG / "collector.yaml", {})),
            ("jaeger", "jaeger", jaeger),
        ):
            variables = {**{key: str(value) for key, value in SERVICES[service]["environment"].items()}, **more}
            command = [str(binary(program)), "validate", "--config", str(file)]
            done = subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr

    def test_a_half_filled_variable_is_named(self, tmp_path: Path) -> None:
        command = [str(binary("jaeger")), "validate", "--config", str(CONFIG / "jaeger" / "jaeger.yaml")]
        done = subprocess.run(command, env={"JAEGER_KEEP": "a week"}, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode != 0
        assert "badger.ttl.spans" in done.stderr
        assert "invalid duration" in done.stderr

    def test_prometheus_accepts_what_is_mounted_and_has_the_features_that_are_tested(self, tmp_path: Path) -> None:
        for volume in SERVICES["prometheus"]["volumes"]:
            source, target, *_ = volume.split(":")
            if source.startswith("."):
                copy = shutil.copytree if (CONFIG / source).is_dir() else shutil.copy
                copy(CONFIG / source, tmp_path / Path(target).name)
        command = [str(binary("promtool")), "check", "config", str(tmp_path / "prometheus.yml")]
        features = f"--enable-feature={PROMETHEUS_FEATURES}"
        done = subprocess.run(
            [*command[:1], "--enable-feature=promql-extended-range-selectors", *command[1:]],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert features in SERVICES["prometheus"]["command"]

    def test_prometheus_scrapes_the_collector_where_it_shows_itself(self) -> None:
        [*targets] = re.findall(r'"collector:(\d+)"', (CONFIG / "prometheus" / "scrape-compose.yml").read_text())
        variables = SERVICES["collector"]["environment"]
        shown = {variables[name].partition(":")[2] for name in ("SHEKEL_METRICS", "SHEKEL_TRACED")} | {"8888"}
        assert set(targets) == shown


class TestHealth:
    """What each health check asks is answered by the program, and by nothing where it is not up."""

    def test_prometheus_is_asked_by_the_tool_in_its_own_image(self, ran: Run) -> None:
        _, tool, *asked, url = SERVICES["prometheus"]["healthcheck"]["test"]
        assert (tool, url) == ("promtool", "--url=http://127.0.0.1:9090")
        command = [str(binary("promtool")), *asked]
        assert subprocess.run([*command, f"--url={ran.prometheus.url}"], capture_output=True).returncode == 0
        assert subprocess.run([*command, "--url=http://127.0.0.1:9"], capture_output=True).returncode != 0

    def test_jaeger_and_the_collector_are_asked_where_they_answer(self, ran: Run) -> None:
        [jaeger] = [word for word in SERVICES["jaeger"]["healthcheck"]["test"] if word.startswith("http")]
        assert get(jaeger.replace(":14133", f":{ran.jaeger.health_port}"))
        [collector] = re.findall(r"http://collector:13133\S*(?=;)", SERVICES["collector-ready"]["command"][2])
        assert get(collector.replace("collector:13133", f"127.0.0.1:{ran.collector.health_port}"))


class TestProvisioning:
    """Grafana publishes no schema of these files: their keys are those of its documentation."""

    def test_data_sources(self) -> None:
        file = read(CONFIG / "grafana" / "provisioning" / "datasources" / "shekel.yaml")
        assert (set(file), file["apiVersion"]) == ({"apiVersion", "datasources"}, 1)
        known = {"name", "uid", "type", "access", "url", "isDefault", "jsonData"}
        for each in file["datasources"]:
            assert set(each) <= known
            assert each["access"] == "proxy"
        assert {each["type"] for each in file["datasources"]} == {"prometheus", "jaeger"}
        assert sum(each.get("isDefault", False) for each in file["datasources"]) == 1
        [prometheus] = [each for each in file["datasources"] if each["type"] == "prometheus"]
        [link] = prometheus["jsonData"]["exemplarTraceIdDestinations"]
        assert link["name"] == "trace_id"
        interval = read(CONFIG / "prometheus" / "prometheus.yml")["global"]["scrape_interval"]
        assert prometheus["jsonData"]["timeInterval"] == interval

    def test_dashboards_are_read_from_where_they_are_mounted(self) -> None:
        file = read(CONFIG / "grafana" / "provisioning" / "dashboards" / "shekel.yaml")
        [provider] = file["providers"]
        mounts = dict(volume.split(":")[:2] for volume in SERVICES["grafana"]["volumes"])
        assert provider["options"]["path"] == mounts["./grafana/dashboards"]
        assert mounts["./grafana/provisioning"] == "/etc/grafana/provisioning"
        home = Path(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
        assert (CONFIG / "grafana" / "dashboards" / home.name).exists()


class TestExample:
    def test_the_image_is_made_of_what_there_is(self) -> None:
        build_of = SERVICES["app"]["build"]
        assert (CONFIG / build_of["context"]).resolve() == ROOT
        dockerfile = (ROOT / build_of["dockerfile"]).read_text()
        for line in re.findall(r"^COPY (.+)$", dockerfile, re.MULTILINE):
            for source in line.split()[:-1]:
                assert (ROOT / source).exists()

    def test_its_command_is_one_that_shekel_takes(self) -> None:
        from shekel.cli import _parser

        arguments = _parser().parse_args(SERVICES["app"]["command"])
        assert (arguments.command, arguments.otlp, arguments.load) == ("demo", "http://collector:4318", 0)


class TestReadme:
    README = (CONFIG / "README.md").read_text(encoding="utf-8")

    def test_what_it_links_and_names_is_there(self) -> None:
        linked = re.findall(r"\]\((?!http)([^)#]+)\)", self.README)
        named = re.findall(r"`((?:prometheus|grafana|jaeger|example|tests)/[\w./*-]*)`", self.README)
        assert linked
        assert named
        for each in {*linked, *named}:
            assert list((ROOT if each.startswith("tests/") else CONFIG).glob(each)), each

    def test_ports_and_versions_are_those_of_compose(self) -> None:
        ports = {port.split(":")[1] for each in SERVICES.values() for port in each.get("ports", ())}
        assert set(re.findall(r"http://127\.0\.0\.1:(\d+)", self.README)) <= ports
        tested = self.README[self.README.index("## Versions") :]
        for image in ("otel/opentelemetry-collector-contrib", "jaegertracing/jaeger", "prom/prometheus"):
            assert TAGS[image].removeprefix("v") in tested
        assert f"Grafana {TAGS['grafana/grafana'].rpartition('.')[0]} is not run" in tested

    def test_its_searches_and_sums_are_metrics_and_keys_that_exist(self) -> None:
        from shekel.telemetry import names

        known = {value for name, value in vars(names).items() if name.isupper() and isinstance(value, str)}
        for word in re.findall(r"`((?:shekel|gen_ai|user|session|tenant)\.[a-z_.]+)`", self.README):
            assert word in known or word.startswith("shekel.traced."), word
