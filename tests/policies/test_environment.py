"""Where the deployment environment of a process comes from, and in which order."""

from __future__ import annotations

import logging

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NoOpTracerProvider

from shekel import faults
from shekel.policies.environment import Environment


def provider(**attributes: str) -> TracerProvider:
    return TracerProvider(resource=Resource({key.replace("_", "."): value for key, value in attributes.items()}))


class TestSources:
    def test_each_gives_way_to_the_one_before(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=from%20variable,other=x")
        assert Environment(NoOpTracerProvider)() == "from variable"
        traced = provider(deployment_environment_name="from resource", deployment_environment="older name")
        assert Environment(lambda: traced)() == "from resource"
        monkeypatch.setenv("SHEKEL_ENVIRONMENT", " from Shekel's ")
        assert Environment(lambda: traced)() == "from Shekel's"
        environment = Environment(lambda: traced)
        environment.given = "from the program"
        assert environment() == "from the program"

    def test_the_older_name_will_do(self) -> None:
        traced = provider(deployment_environment="staging")
        assert Environment(lambda: traced)() == "staging"

    def test_a_provider_that_is_set_later_is_asked_then(self) -> None:
        now = [NoOpTracerProvider(), provider(deployment_environment_name="production")]
        environment = Environment(lambda: now[0])
        assert environment() is None
        del now[0]
        assert environment() == "production"

    def test_none_is_said_once(self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(faults, "_said", set())
        environment = Environment(NoOpTracerProvider)
        with caplog.at_level(logging.WARNING):
            assert [environment(), environment()] == [None, None]
        (record,) = caplog.records
        assert "SHEKEL_ENVIRONMENT" in record.getMessage()
