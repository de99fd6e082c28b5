"""What the store calls folders of artifacts that are no ordinary result of a stage."""

MODEL_STAGE = "train"
CHECKPOINT = "checkpoint"
IMPORT_STAGE = "import"
"""What stands for the stage of a folder of another program that was imported."""
PLAN = "plan"
EXPERIMENT = "experiment"
FAILURE = "failure"
EXPERIMENT_STAGES = (PLAN, EXPERIMENT, FAILURE)
KEPT_STAGES = (MODEL_STAGE, *EXPERIMENT_STAGES)
"""The stages of which `gc` keeps every artifact; forgotten experiments would be looked at again."""
