"""The page on which people rank responses: `python -m flows.label`; `python -m flows.label add NAME` prints a labeler's link."""

import logging
import re
import sys
from pathlib import Path

import uvicorn

from flows.label.app import create_app
from flows.label.desk import CLOSED, is_closed
from flows.label.formats import FORMATS, export_labels, import_labels
from flows.label.tokens import Labelers
from flows.label.waiting import wake_meanwhile, wake_runs
from flows.pages import check_port
from flows.parser import Parser
from flows.process import environment
from tasks.engine.errors import ConfigError, PlumblineError
from tasks.engine.os_errors import probe, readable_os_errors
from tasks.records.labels import FOLDER, LabelBatch, batch_folder, batches, progress, read_batch, read_labels

PORT = 4300
OWN = "127.0.0.1"
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")


def serve(host: str, port: int, names: list[str]) -> None:
    """The page, until Ctrl-C.

    Raises:
        ConfigError: the port is in use, or nobody could open the page under a name it answers to.
        ArtifactError: the home folder cannot be written.
    """
    if host not in (OWN, "localhost") and not names:
        raise ConfigError(
            f"--host {host}: found no --name, expected the name or address that labelers type, at least once; the page "
            "answers to no other"
        )
    if wrong := [name for name in names if not HOST.fullmatch(name)]:
        raise ConfigError(
            f"--name {wrong[0]}: expected a host name or address alone, such as labels.example, without http:// and port"
        )
    check_port(port)
    probe(environment.HOME / FOLDER)
    show(environment.HOME)
    print(f"labelling page: http://{OWN}:{port}   (Ctrl-C ends it)", flush=True)
    if host not in (OWN, "localhost"):
        print(
            "it is open to the network without encryption: tokens and texts can be read on the way; put TLS before it"
        )
    app = create_app(environment.HOME, names, stored=wake_meanwhile)
    uvicorn.run(app, host=host, port=port, access_log=False, log_level="warning", server_header=False)


def show(home: Path) -> None:
    """Batches, how far each is, and who may label."""
    names = Labelers(home).names()
    for batch_id in batches(home):
        batch = read_batch(batch_folder(home, batch_id))
        done = progress(batch, read_labels(batch), names)
        closed = ", closed" if is_closed(batch.folder) else ""
        print(f"batch {batch_id}: {len(batch.items)} items, {done.given} of {done.wanted} answers{closed}")
    if not batches(home):
        print(f"no batch in {home / FOLDER} yet")
    print(f"labelers: {', '.join(names) or 'none yet; python -m flows.label add NAME makes a link'}")


def chosen(home: Path, batch_id: str) -> LabelBatch:
    """The batch that is named, or the only one.

    Raises:
        ConfigError: nothing says which.
        DataError: there is none of this id.
    """
    known = batches(home)
    if not batch_id and len(known) != 1:
        raise ConfigError(f"found {len(known)} batches ({', '.join(known) or 'none'}); name one with --batch")
    return read_batch(batch_folder(home, batch_id or known[0]))


def arguments() -> Parser:
    """What can be typed."""
    parser = Parser(prog="python -m flows.label", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    helps = {
        "serve": "the page; the same as no command",
        "list": "batches, how far each is, and who may label",
        "add": "print a labeler's personal link",
        "remove": "end a labeler's link; the labels stay",
        "close": "take no more labels for a batch; a run reads those that are there",
        "open": "take labels for a closed batch again",
        "export": "write a batch with its labels as files of another tool",
        "import": "add the labels in a file of another tool to a batch",
    }
    made = {name: commands.add_parser(name, help=words, description=words) for name, words in helps.items()}
    made["serve"].add_argument("--port", type=int, default=PORT)
    made["serve"].add_argument("--host", default=OWN, help=f"address to listen on; default {OWN}: this machine only")
    made["serve"].add_argument("--name", action="append", default=[], help="with --host: a name the page answers to")
    for name in ("add", "remove"):
        made[name].add_argument("name", help="of the labeler: letters, digits, '.', '_' and '-'")
    for name, path in (("export", "folder"), ("import", "file")):
        made[name].add_argument("format", choices=sorted(FORMATS))
        made[name].add_argument(path, type=Path)
        made[name].add_argument("--batch", default="", help="needed where there are several")
    for name in ("close", "open"):
        made[name].add_argument("batch")
    made["add"].add_argument("--renew", action="store_true", help="replace the link of a labeler who has one")
    made["add"].add_argument("--url", default=f"http://{OWN}:{PORT}", help="where labelers open the page")
    return parser


def main(typed: list[str]) -> None:
    """Command line."""
    if not typed or (typed[0].startswith("-") and typed[0] not in ("-h", "--help")):
        typed = ["serve", *typed]
    given = arguments().parse_args(typed)
    logging.basicConfig(format="%(message)s")
    home = environment.HOME
    try:
        match given.command:
            case "serve":
                serve(given.host, given.port, given.name)
            case "list":
                show(home)
            case "add":
                print(f"{given.url.rstrip('/')}/enter?token={Labelers(home).add(given.name, renew=given.renew)}")
            case "remove":
                Labelers(home).remove(given.name)
                print(f"the link of {given.name} has ended")
            case "close" | "open":
                mark = chosen(home, given.batch).folder / CLOSED
                with readable_os_errors(mark.parent):
                    mark.touch() if given.command == "close" else mark.unlink(missing_ok=True)
                show(home)
            case "export":
                for path in export_labels(given.format, chosen(home, given.batch), given.folder):
                    print(path)
            case "import":
                batch = chosen(home, given.batch)
                if is_closed(batch.folder):
                    raise ConfigError(
                        f"batch {batch.batch.id} is closed; python -m flows.label open {batch.batch.id} opens it"
                    )
                new, old = import_labels(given.format, batch, given.file)
                print("\n".join([f"{new} labels added, {old} were there already", *wake_runs(batch.folder)]))
    except PlumblineError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
