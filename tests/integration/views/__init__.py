"""Grafana's dashboards, Jaeger and compose, against the real programs with the data of one known run."""
