"""What the hardware is, as data: one TOML file a target, one loader."""

from qcomp.targets.loader import Memory, Target, levels, native, parse_target, target, target_names

__all__ = ["Memory", "Target", "levels", "native", "parse_target", "target", "target_names"]
