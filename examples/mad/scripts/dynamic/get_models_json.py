"""Models that are computed: one for each sequence length.

`list_models()` must be quick, because every `discover` calls it. What takes longer belongs into `update_model()`, which
is called only for models that were selected.
"""

from dataclasses import dataclass

from madengine.utils.discover_models import CustomModel

LENGTHS = (128, 512)


@dataclass
class Sequence(CustomModel):
    length: int = 0

    def update_model(self):
        self.args = f"--length {self.length}"
        self.training_precision = "bf16" if self.length > 256 else "fp16"


def list_models():
    return [
        Sequence(
            name=f"sequence-{length}",
            dockerfile="../../docker/dummy",
            scripts="run.sh",
            owner="maddock@example.com",
            tags=["quick", "dynamic", "all-outcomes"],
            length=length,
        )
        for length in LENGTHS
    ]
