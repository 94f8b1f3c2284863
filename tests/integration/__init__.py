"""Tests with the real programs of the cost views: collector, Prometheus, Jaeger, on free ports of this machine."""
