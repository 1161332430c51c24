"""Measurements of speed, quality, memory, hosts and peers. Read `README.md` first."""
