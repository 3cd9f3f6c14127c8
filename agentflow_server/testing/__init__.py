"""Conformance suites: subclass one in your tests to hold your own implementation to the contract."""
