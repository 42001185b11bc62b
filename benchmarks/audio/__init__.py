"""How well and how fast recordings are transcribed on this machine: `python -m benchmarks.audio [--json] [--quick]`.

The voices are espeak-ng's, which are harder to understand than people, and one recording of a person, which the
local engine's package brings.
"""
