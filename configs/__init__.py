"""The Hydra configs, packaged as `bpc_cli.configs`."""
