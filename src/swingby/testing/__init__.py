"""For tests of Swingby and of what is built on it: conformance suites, bases in memory, seeded faults, campaigns."""
