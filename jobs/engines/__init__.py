"""Engines: each runs invocations behind `jobs.protocols.Engine`."""
