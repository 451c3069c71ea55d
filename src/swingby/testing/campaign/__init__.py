"""The campaign that tries to break Swingby: seeded faults over real processes, files and mounts."""
