"""Where compute meets files: one short module for each stage, each with `run(config, inputs, out, report)`."""
