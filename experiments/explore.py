"""Explore an atlas in a browser: its neurons, their features and the text behind them, search and comparison.

Serves to this machine alone and prints the address; with --export it writes the same pages as a static site instead,
which works from any file server, also under a sub-path. Nothing is loaded from the network, and the atlas is only read.

    python experiments/explore.py                                  # the atlas of experiments/build_atlas.py: runs/demo
    python experiments/explore.py --atlas=runs/paper --port=0      # on any port that is free
    python experiments/explore.py --export=site --max_mb=200       # then: python -m http.server --directory site

Neither an accelerator nor JAX is used. It answers within two seconds of its start, also for the 36,864 neurons of a
GPT-2 small; how fast, and how large a static site becomes, is in docs/measurements.md.
"""

from absl import flags

from nejax.scripts import read_flags, run_script

FLAGS = flags.FLAGS
flags.DEFINE_string("atlas", "runs/demo", "Folder of the atlas, or the run directory that holds it.")
flags.DEFINE_string("host", "127.0.0.1", "Address to listen on; 0.0.0.0 lets other machines in.")
flags.DEFINE_integer("port", 8000, "Port to listen on; 0: any that is free.", lower_bound=0, upper_bound=65535)
flags.DEFINE_string("export", None, "Write a static site into this folder, and serve nothing.")
flags.DEFINE_float(
    "max_mb", 1000, "--export: millions of bytes that it may take; if it must, fewer examples come with their text."
)

if __name__ == "__main__":
    read_flags()

from nejax.atlas.explorer.server import explorer_app
from nejax.atlas.explorer.serving import directions, listen, serve
from nejax.atlas.explorer.shards import Shards
from nejax.atlas.files import AtlasFiles, find_atlas


def main(argv: list[str]) -> None:
    """Serve until Ctrl-C, or export."""
    files = AtlasFiles(find_atlas(FLAGS.atlas))
    if FLAGS.export is not None:
        from nejax.atlas.explorer.export import export_site  # takes a second

        exported = export_site(files, FLAGS.export, max_mb=FLAGS.max_mb)
        print(f"Wrote {exported.files:,} files, {exported.bytes / 1e6:,.1f} MB, into {FLAGS.export}.")
        if exported.examples_per_feature is not None:
            print(
                f"To fit --max_mb={FLAGS.max_mb:g}, {exported.examples_per_feature} examples a feature have their text."
            )
        return
    with listen(FLAGS.host, FLAGS.port) as listener:
        app = explorer_app(Shards(files), FLAGS.host)
        print(directions(FLAGS.host, listener.getsockname()[1]), flush=True)
        serve(app, listener)
    print("Stopped.")


if __name__ == "__main__":
    run_script(main, what_is_left="nothing of the export is left")
