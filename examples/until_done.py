#!/usr/bin/env python3
"""until_done.py PELTON PIPELINE...: waits until pipelines have committed all that the topics have which they read."""
import json
import subprocess
import sys
import time

PATIENCE_S = 300


def ask(pelton, *command):
    return json.loads(subprocess.run([pelton, *command, "--json"], check=True, capture_output=True, text=True).stdout)


def is_done(pelton, pipeline):
    described = ask(pelton, "pipeline", "describe", pipeline)
    if described["failure"]:
        sys.exit(f"pipeline {pipeline}: {described['failure']['reason']}")
    committed = {(task["topic"], task["partition"]): task["committed"] for task in described["tasks"]}
    for topic in {topic for topic, _ in committed}:
        for partition in ask(pelton, "topic", "describe", topic)["partitions"]:
            if committed.get((topic, partition["partition"])) != partition["log_end"]:
                return False
    return bool(committed)


def main():
    pelton, *pipelines = sys.argv[1:]
    end = time.monotonic() + PATIENCE_S
    for pipeline in pipelines:
        # What one part of a pipeline has written in between is seen by the second look.
        while not (is_done(pelton, pipeline) and is_done(pelton, pipeline)):
            if time.monotonic() > end:
                sys.exit(f"pipeline {pipeline} is not done: {ask(pelton, 'pipeline', 'describe', pipeline)}")
            time.sleep(0.2)


main()
