#!/usr/bin/env python3
"""The runtime alone: JSON records of 331 bytes, parsed, checked, the e-mail replaced by an HMAC, produced again, exactly-once.

    runtime.py HOKUSAI OWN_STAGE JARS WORK_DIR [--records N] [--commit-ms 1000] [--rounds N] [--quixstreams PYTHON]

Ours (examples/own_stage.rs), Kafka Streams and, where it is installed, quixstreams take turns on the same broker: first on Apache Kafka,
then on the embedded one. CPU is that of the program itself; the broker's, from /proc, stands beside it.
"""
import argparse
import contextlib
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).parent
TICK = os.sysconf("SC_CLK_TCK")


def cpu(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(port, process):
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None:
            sys.exit(f"the broker ended with {process.returncode}")
        time.sleep(0.1)


@contextlib.contextmanager
def running(command, port, log):
    """A broker, from its first answer to its end."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_for(port, process)
        yield process, f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


@contextlib.contextmanager
def apache_kafka(jars, folder):
    port, properties = free_port(), folder / "server.properties"
    text = (HERE.parent / "tests/kafka/server.properties").read_text()
    for name, value in (("PORT", port), ("CONTROLLER", free_port()), ("FOLDER", folder)):
        text = text.replace(f"@{name}@", str(value))
    properties.write_text(text)
    java = ["java", "-Xmx1g", "-cp", f"{jars}/*"]
    made = subprocess.run([*java, "kafka.tools.StorageTool", "random-uuid"], check=True, capture_output=True, text=True)
    cluster = made.stdout.split()[-1]
    with open(folder / "kafka.log", "wb") as log:
        subprocess.run([*java, "kafka.tools.StorageTool", "format", "--standalone", "-t", cluster, "-c", str(properties)], check=True, stdout=log, stderr=log)
        with running([*java, "kafka.Kafka", str(properties)], port, log) as broker:
            yield broker


@contextlib.contextmanager
def embedded(hokusai, folder):
    port = free_port()
    command = [hokusai, "broker", "--data", str(folder / "data"), "--listen", f"127.0.0.1:{port}", "--format", "json"]
    with open(folder / "broker.log", "wb") as log, running(command, port, log) as broker:
        yield broker


def measured(broker, records, command, pattern):
    """Runs a program; prints its own figure and the broker's CPU meanwhile."""
    before = cpu(broker.pid)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)
    spent = (cpu(broker.pid) - before) / records * 1e6
    lines = [line for line in done.stdout.splitlines() if re.search(pattern, line)]
    if not lines:
        sys.exit(f"{command[0]} said nothing:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    print(f"  {lines[-1]}; broker {spent:.2f} us/msg", flush=True)
    return float(re.search(pattern, lines[-1]).group(1))


def compare(name, broker, address, arguments, folder):
    records = arguments.records
    print(f"{name}, {records} records, commits every {arguments.commit_ms} ms", flush=True)
    outs = [f"out-{who}-{n}" for who in ("ours", "streams") for n in range(arguments.rounds)] + ["out-quix"]
    subprocess.run([sys.executable, HERE / "peers/load.py", address, "peer-in", str(records), *outs], check=True, stdout=subprocess.DEVNULL)
    ours, streams, warm = [], [], []
    for n in range(arguments.rounds):
        ours.append(measured(broker, records, [arguments.own_stage, address, "peer-in", f"out-ours-{n}", str(records), str(arguments.commit_ms), f"mask{n}"], r"= ([\d.]+) us/msg"))
        streams.append(measured(broker, records, ["java", f"-Djava.io.tmpdir={folder}", "-cp", f"{folder}:{arguments.jars}/*", "KafkaStreamsPeer", address, "peer-in",
                                                  f"out-streams-{n}", str(records), str(arguments.commit_ms), "1"], r"from first record ([\d.]+) us/msg"))
    ratio = min(streams) / min(ours)
    print(f"  ratio: Kafka Streams needs {ratio:.1f} times our CPU", flush=True)
    if arguments.quixstreams:
        share = min(records, 200_000)
        quix = measured(broker, share, [arguments.quixstreams, HERE / "peers/quixstreams_peer.py", address, "peer-in", "out-quix", "exactly-once", str(share),
                                        str(arguments.commit_ms / 1000)], r"\((\d+) us/msg")
        print(f"  ratio: quixstreams needs {quix / min(ours):.1f} times our CPU", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("hokusai", "own_stage", "jars"):
        parser.add_argument(name)
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--commit-ms", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--quixstreams", help="a Python that has it")
    arguments = parser.parse_args()
    for broker in (lambda f: apache_kafka(arguments.jars, f), lambda f: embedded(arguments.hokusai, f)):
        folder = arguments.work / "runtime"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        subprocess.run(["javac", "-cp", f"{arguments.jars}/*", "-d", folder, HERE / "peers/KafkaStreamsPeer.java"], check=True)
        with broker(folder) as (process, address):
            name = "Apache Kafka" if process.args[0] == "java" else "Embedded broker"
            compare(name, process, address, arguments, folder)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
