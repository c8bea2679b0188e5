"""The flags of `build_atlas.py`, by subject; those of the settings follow from `nejax.pipeline.run.settings`."""

from absl import flags

from nejax.pipeline.run.constants import CHUNK_MIB
from nejax.pipeline.run.settings import GROUPS, Settings
from nejax.scripts import setting_flags, subject

FLAGS = flags.FLAGS

subject("The run")
flags.DEFINE_string("run", "runs/demo", "Where everything is written.")
setting_flags(Settings, "seed")
flags.DEFINE_integer("batch_size", 16, "Sequences a pass, on all devices together; does not change the result.")
flags.DEFINE_float("checkpoint_seconds", 60.0, "Between checkpoints of the collection; does not change the result.")
flags.DEFINE_integer(
    "chunk_mib", CHUNK_MIB, "MiB for the neurons that are clustered at a time; does not change the result."
)

for group in GROUPS.values():
    setting_flags(group)

subject("Several processes as one")
flags.DEFINE_string("coordinator", None, "Of several processes that run as one: HOST:PORT of process 0.")
flags.DEFINE_integer("n_processes", 1, "How many processes run as one, each started with the same flags but --process.")
flags.DEFINE_integer("process", 0, "Which of them this is, from 0.")
