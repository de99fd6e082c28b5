"""Where compute meets files: a module for each stage with `run(config, inputs, out, reporter)`."""
