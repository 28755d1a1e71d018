"""The verb `keys`: create the key that signs promoted models, and say whose signatures are accepted."""

import argparse
import json

from ferhpo.cli.screen.console import make_console, say
from ferhpo.errors import ConfigError


def keys(args: argparse.Namespace) -> None:
    from ferhpo import signing
    from ferhpo.signing.keys import short

    if (args.file is None) == (args.action == "trust"):
        rule = "needs the file of a public key" if args.action == "trust" else "takes no file"
        raise ConfigError("keys", [f"{args.action} {rule}, e.g. ferhpo keys trust alice.pub"])
    if args.name is not None and args.action == "list":
        raise ConfigError("keys", ["list takes no --name"])
    if args.action == "list":
        _print_keys(args.json)
        return
    key = signing.create(args.name or "own") if args.action == "create" else signing.trust(args.file, args.name)
    if args.json:
        print(json.dumps({"name": key.name, "fingerprint": key.fingerprint, "file": str(key.path)}))
    elif args.action == "create":
        say(f"created the key {short(key.fingerprint)}; `ferhpo promote` signs with it from now on")
        say(f"whoever loads your models needs its public half: ferhpo keys trust {key.path}")
    else:
        say(f"models that the key {short(key.fingerprint)} ({key.name}) signed are accepted from now on")


def _print_keys(as_json: bool) -> None:
    from ferhpo.cli.screen.grid import Grid
    from ferhpo.signing.keys import fingerprint_of, keys_folder, own_key, short, trusted

    private = own_key()
    own = None if private is None else fingerprint_of(private)
    found = trusted()
    if as_json:
        values = [{"name": key.name, "fingerprint": key.fingerprint, "own": key.fingerprint == own} for key in found]
        print(json.dumps(values))
    elif not found:
        say(f"there are no keys in {keys_folder()}; `ferhpo keys create` creates one")
    else:
        names = ["key", "fingerprint", ""]
        rows = [[key.name, short(key.fingerprint), "signs here" if key.fingerprint == own else ""] for key in found]
        make_console().print(Grid(names, rows, names))
