"""Planning shared by all back ends: order of execution, alias classes, halos and arena offsets."""

from qcomp.codegen.plan.plan import Fill, MemoryPlan, Operand, Step, make_plan

__all__ = ["Fill", "MemoryPlan", "Operand", "Step", "make_plan"]
