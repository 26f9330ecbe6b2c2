"""Raw requests to Kafka and pelton, written and read by the codec of Kafka's own client (java/Ask.java)."""
import json
import os
import pathlib
import struct
import subprocess

CACHE = pathlib.Path(os.environ.get("PELTON_CACHE") or
                     pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "pelton") / "oracle"
PRODUCE_VERSION = 8  # the last without tagged fields: written and read by hand here, since JSON has no place for records


class Ask:
    def __init__(self):
        command = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", f"{CACHE}/classes:{CACHE}/libs/*", "Ask"]
        self.p = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def _line(self, question):
        self.p.stdin.write(json.dumps(question) + "\n")
        self.p.stdin.flush()
        line = self.p.stdout.readline()
        if not line:
            raise RuntimeError(f"java/Ask.java ended at {str(question)[:300]}")
        return json.loads(line)

    def __call__(self, to, api, version, **body):
        """The answer as a dict; the strings "closed" and "silent" where there is none."""
        got = self._line({"to": to, "api": api, "version": version, "body": body})
        if "left" in got:
            raise RuntimeError(f"{got['left']} bytes after the answer of {api} v{version}")
        return got["answer"] if "answer" in got else next(iter(got))

    def raw(self, to, api, version, hex_bytes):
        """The bytes of the answer after the correlation id."""
        got = self._line({"to": to, "api": api, "version": version, "hex": hex_bytes})
        return bytes.fromhex(got["hex"]) if "hex" in got else next(iter(got))

    def produce(self, to, topic, codec, values, acks=-1):
        """Appends one batch to partition 0; (error code, the numbers of the records that are to blame)."""
        return self._send(to, topic, self._line({"codec": codec, "values": values})["hex"], acks)

    def produce_records(self, to, topic, codec, time, records, transaction=None):
        """Appends one batch of (key, value or None) to partition 0, in a transaction (id, producer id, epoch, sequence) or not."""
        question = {"codec": codec, "time": time, "records": records}
        if transaction:
            question["producer"] = transaction[1:]
        return self._send(to, topic, self._line(question)["hex"], -1, transaction and transaction[0])

    def _send(self, to, topic, batch, acks, transactional_id=None):
        batch = bytes.fromhex(batch)
        name = struct.pack(">h", len(topic)) + topic.encode()
        ids = (transactional_id or "").encode()
        body = struct.pack(">h", len(ids) if transactional_id else -1) + ids + struct.pack(">hi", acks, 5000) + struct.pack(">i", 1) + name + struct.pack(">iii", 1, 0, len(batch)) + batch
        answer = self.raw(to, "Produce", PRODUCE_VERSION, body.hex())
        at = 4 + len(name) + 4 + 4
        code, = struct.unpack_from(">h", answer, at)
        at += 2 + 8 + 8 + 8
        count, = struct.unpack_from(">i", answer, at)
        at += 4
        blamed = []
        for _ in range(count):
            index, length = struct.unpack_from(">ih", answer, at)
            at += 6 + max(length, 0)
            blamed.append(index)
        return code, blamed

    def stop(self):
        self.p.stdin.close()
        self.p.wait()
