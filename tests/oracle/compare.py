#!/usr/bin/env python3
"""Sends the same requests to pelton and to Apache Kafka, one broker each without authorizer, and compares the answers.

Texts, ids, times and addresses are left out of the comparison. A difference that is meant stands in DIFFERENT below with its
reason, and one that is not there any more must go from there. $PELTON_BIN is pelton; names of cases select some of them.
"""
import json
import os
import sys
import time

import servers
from ask import Ask

# What of an answer is each broker's own.
OWN = {"errorMessage", "throttleTimeMs", "topicId", "documentation", "totalBytes", "usableBytes", "logDir", "host", "port",
       "lastFetchTimestamp", "lastCaughtUpTimestamp", "replicaDirectoryId", "logEndOffset", "highWatermark", "leaderEpoch",
       "clusterId", "brokerEpoch"}
SMALL = "Kafka makes no segment smaller than 1 MiB; pelton leaves that to the operator"
DIFFERENT = {
    "topic-values segment.bytes=14": SMALL,
    "topic-values segment.bytes=1048575": SMALL,
    "topic-values internal.segment.bytes=100": "a key of Kafka's own tests",
    "topic-values min.cleanable.dirty.ratio=NaN": "no ratio is NaN",
    "topic-values follower.replication.throttled.replicas=x": "without effect with one broker, so not checked",
    "topic-values min.compaction.lag.ms=10 max.compaction.lag.ms=5": "two settings that are without effect until there is compaction",
    "topic-defaults flush.ms": "the most that `pelton.durability=interval` may lose, a promise that Kafka does not make",
    "topic-defaults min.insync.replicas": "Kafka 4.4 sets it for the cluster when it is formatted",
    "names __share_group_state": "kept for what it is in Kafka; there are no share groups yet",
    "alter internal": "clients cannot make, change or delete the broker's own topics",
    "alter broker": "the broker's settings are in its file",
    "alter metrics": "no metrics of clients are collected",
    "alter group": "groups have no settings of their own",
    "alter logger": "the broker's log is set at its start",
    "alter unknown operation": "Kafka fails on it, with UNKNOWN_SERVER_ERROR",
    "describe every-broker": "min.insync.replicas, which Kafka 4.4 sets for the cluster when it is formatted",
    "describe metrics": "read-only, since clients cannot change them here",
    "describe group": "groups have no settings of their own",
    "describe logger": "the broker's log is set at its start",
    "nothing 29": "Kafka hangs up on an operation of ACLs that it does not know, even without ACLs",
    "nothing 24 of brokers": "Kafka never answers a broker that adds no transaction",
    "features downgrade": "the versions of features never change",
    "features off": "the versions of features never change",
    "features upgrade type": "nothing is upgraded, so it does not matter how",
}


# How long Kafka may take to show a change, in seconds.
APPLIED = 10

# Broker settings of pelton's that Kafka does not have: some of its own, and defaults of what Kafka lets only topics set.
NOT_KAFKAS = {"advertise", "data.dir", "http.listen", "listen", "producer.id.expiration.check.interval.ms",
              "errors.deadletterqueue.group.enable", "follower.replication.throttled.replicas",
              "leader.replication.throttled.replicas", "remote.log.copy.disable", "remote.log.delete.on.disable",
              "remote.log.storage.enable"}


def plain(value):
    """An answer without what is each broker's own; lists are sets to Kafka."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items() if key not in OWN}
    if isinstance(value, tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, list):
        return sorted((plain(inner) for inner in value), key=lambda inner: json.dumps(inner, sort_keys=True))
    return value


class Comparison:
    def __init__(self, ask, pelton, kafka):
        self.ask, self.brokers = ask, [pelton, kafka]
        self.counts, self.bad, self.met = {}, [], set()

    def same(self, what, of, then=None):
        """`of`: what to compare, a function of a broker's address. `then`: what is so after that, another one; Kafka's controller
        answers before its broker has heard of a change, so Kafka is asked again for a while."""
        self.counts[what.split()[0]] = self.counts.get(what.split()[0], 0) + 1
        pelton, kafka = ([plain(ask(broker)) for ask in (of, then) if ask] for broker in self.brokers)
        end = time.monotonic() + APPLIED
        while then and pelton != kafka and what not in DIFFERENT and time.monotonic() < end:
            time.sleep(0.05)
            kafka[1] = plain(then(self.brokers[1]))
        if pelton == kafka:
            return
        if what in DIFFERENT:
            self.met.add(what)
        else:
            self.bad.append(f"{what}: pelton {short(pelton)} | Kafka {short(kafka)}")

    def request(self, what, api, version, **body):
        self.same(what, lambda broker: self.ask(broker, api, version, **body))

    def every_version(self, what, api, versions, **body):
        for version in versions:
            self.request(what, api, version, **body)


def short(value):
    text = json.dumps(value, sort_keys=True)
    return text if len(text) < 300 else text[:300] + "…"


def topic(name, partitions=1, **configs):
    """A topic of CreateTopics; `_` in the name of a setting is a dot."""
    return {"name": name, "numPartitions": partitions, "replicationFactor": 1, "assignments": [],
            "configs": [{"name": key.replace("_", "."), "value": value} for key, value in configs.items()]}


def create(c, *topics):
    for broker in c.brokers:
        for made in c.ask(broker, "CreateTopics", 7, timeoutMs=10_000, topics=list(topics))["topics"]:
            assert made["errorCode"] == 0, made
        # Kafka makes the partitions after it has answered.
        wanted = {made["name"] for made in topics}
        servers.until(lambda: wanted <= {known["name"] for found in c.ask(broker, "DescribeLogDirs", 4, topics=None)["results"]
                                         for known in found["topics"]}, "directory of a new topic")


def resource(kind, name, keys=None):
    return {"resourceType": kind, "resourceName": name, "configurationKeys": keys}


def described(c, broker, kind, name):
    answer = c.ask(broker, "DescribeConfigs", 4, resources=[resource(kind, name)], includeSynonyms=False, includeDocumentation=False)
    return answer["results"][0]


def versions(c):
    software = {"clientSoftwareName": "ask", "clientSoftwareVersion": "1"}
    kafkas = {api["apiKey"]: api for api in c.ask(c.brokers[1], "ApiVersions", 5, **software)["apiKeys"]}
    for version in range(6):
        def within(broker, version=version):
            """Whether all that a broker offers is in Kafka's ranges: clients know no others."""
            answer = c.ask(broker, "ApiVersions", version, **(software if version > 2 else {}))
            outside = [api for api in answer["apiKeys"]
                       if api["maxVersion"] > kafkas[api["apiKey"]]["maxVersion"]
                       or api["minVersion"] < kafkas[api["apiKey"]]["minVersion"]]
            return answer["errorCode"], outside
        c.same("versions within Kafka's", within)
    for version in (6, 99):
        c.same("versions unknown", lambda broker: c.ask.raw(broker, "ApiVersions", version, "00").hex())
    for name in ("", "-a", "a b"):
        c.request("versions software", "ApiVersions", 4, clientSoftwareName=name, clientSoftwareVersion="1")
    for cluster, node in (("right", 1), ("right", 2), ("right", -1), ("wrong", 1), ("wrong", -1), (None, 1), (None, -1), ("", 1)):
        def node_of_cluster(broker):
            own = c.ask(broker, "DescribeCluster", 0)["clusterId"]
            answer = c.ask(broker, "ApiVersions", 5, **software, clusterId=own if cluster == "right" else cluster, nodeId=node)
            return answer["errorCode"], not answer["apiKeys"]
        c.same("versions node of a cluster", node_of_cluster)


def acls(c):
    filters = {"resourceTypeFilter": 1, "resourceNameFilter": None, "patternTypeFilter": 1, "principalFilter": None,
               "hostFilter": None, "operation": 1, "permissionType": 1}
    acl = {"resourceType": 2, "resourceName": "t", "resourcePatternType": 3, "principal": "User:a", "host": "*", "operation": 3,
           "permissionType": 3}
    c.every_version("acls describe", "DescribeAcls", range(1, 4), **filters)
    c.every_version("acls create", "CreateAcls", range(1, 4), creations=[acl, acl])
    c.every_version("acls create none", "CreateAcls", range(1, 4), creations=[])
    c.every_version("acls delete", "DeleteAcls", range(1, 4), filters=[filters])


def reassignments(c):
    create(c, topic("moved", 2))
    one = lambda partition, replicas: {"partitionIndex": partition, "replicas": replicas}
    for topics in (None, [], [{"name": "moved", "partitionIndexes": [0, 9]}], [{"name": "nope", "partitionIndexes": [0]}]):
        c.request("reassignments list", "ListPartitionReassignments", 0, topics=topics)
    moves = [one(0, [1]), one(1, None), one(5, [1]), one(0, [2]), one(1, []), one(0, [1, 1]), one(0, [-1])]
    for topics in ([], [{"name": "nope", "partitions": [one(0, [1])]}], [{"name": "moved", "partitions": moves}]):
        c.every_version("reassignments alter", "AlterPartitionReassignments", range(2), topics=topics)


def elections(c):
    create(c, topic("led", 2))
    some = [{"topic": "led", "partitions": [0, 1, 7]}, {"topic": "nope", "partitions": [0]}]
    for kind in (0, 1, 2, -1):
        for version in (1, 2):
            c.request(f"elections {kind} some", "ElectLeaders", version, electionType=kind, topicPartitions=some)
            c.request(f"elections {kind} none", "ElectLeaders", version, electionType=kind, topicPartitions=[])
    c.request("elections old", "ElectLeaders", 0, topicPartitions=some)
    # All: a name for each topic there is, so only the codes can be compared.
    for kind in (0, 1, 2):
        def all_of_them(broker):
            answer = c.ask(broker, "ElectLeaders", 2, electionType=kind, topicPartitions=None)
            return answer["errorCode"], [t for t in answer["replicaElectionResults"] if t["partitionResult"]]
        c.same(f"elections {kind} all", all_of_them)


def quorum(c):
    for name, partition in (("__cluster_metadata", 0), ("__cluster_metadata", 1), ("nope", 0)):
        topics = [{"topicName": name, "partitions": [{"partitionIndex": partition}]}]
        c.every_version(f"quorum {name} {partition}", "DescribeQuorum", range(3), topics=topics)
    c.every_version("quorum none", "DescribeQuorum", range(3), topics=[])


def quotas(c):
    part = lambda kind, match, name=None: {"entityType": kind, "matchType": match, "match": name}
    for parts in ([], [part("user", 2)], [part("user", 0, "u"), part("client-id", 1)], [part("ip", 0, "1.2.3.4")], [part("x", 2)],
                  [part("user", 9)], [part("user", 0)], [part("user", 1, "u")], [part("", 2)], [part("user", 2), part("user", 2)],
                  [part("client-id", 2), part("ip", 2)]):
        for version in (0, 1):
            for strict in (False, True):
                c.request("quotas", "DescribeClientQuotas", version, components=parts, strict=strict)
    for users in (None, [], [{"name": "a"}], [{"name": ""}], [{"name": "a"}, {"name": "b"}, {"name": "a"}]):
        c.request("quotas scram", "DescribeUserScramCredentials", 0, users=users)


def features(c):
    def update(what, feature, level, kind=1):
        for version in (0, 1, 2):
            asked = {"feature": feature, "maxVersionLevel": level}
            asked |= {"upgradeType": kind} if version else {"allowDowngrade": kind > 1}
            more = {"validateOnly": True} if version else {}
            c.same(what, lambda broker: c.ask(broker, "UpdateFeatures", version, featureUpdates=[asked], **more)["errorCode"])
    update("features same", "transaction.version", 2)
    update("features higher", "transaction.version", 3)
    update("features lower", "transaction.version", 1)
    update("features negative", "transaction.version", -1)
    update("features unknown", "nope", 1)
    update("features nameless", "", 1)
    for what, level, kind in (("downgrade", 1, 2), ("off", 0, 3), ("upgrade type", 2, 9)):
        asked = {"feature": "transaction.version", "maxVersionLevel": level, "upgradeType": kind}
        c.same(f"features {what}", lambda broker: c.ask(broker, "UpdateFeatures", 2, featureUpdates=[asked],
                                                        validateOnly=True)["errorCode"])


def resources(c):
    create(c, topic("listed"))
    for kinds in ([], [2], [4], [8], [16], [32], [2, 4], [1], [64], [-1]):
        def listed(broker):
            answer = c.ask(broker, "ListConfigResources", 1, resourceTypes=kinds)
            named = [r for r in answer["configResources"] if r["resourceType"] != 2 or r["resourceName"] == "listed"]
            return answer["errorCode"], named
        c.same("resources list", listed)
    c.request("resources list old", "ListConfigResources", 0)


def describe(c):
    create(c, topic("shown"))
    for what, kind, name in (("every-broker", 4, ""), ("logger", 8, "1"), ("metrics", 16, "sub"), ("group", 32, "g")):
        c.same(f"describe {what}", lambda broker: described(c, broker, kind, name))
    for what, kind, name in (("other broker", 4, "2"), ("no broker", 4, "x"), ("no logger", 8, ""), ("other logger", 8, "2"),
                             ("nameless metrics", 16, ""), ("nameless group", 32, ""), ("unknown type", 64, "x"),
                             ("unknown topic", 2, "nope")):
        c.same(f"describe {what}", lambda broker: described(c, broker, kind, name))
    kafkas = {config["name"] for config in described(c, c.brokers[1], 4, "1")["configs"]}
    own = {config["name"] for config in described(c, c.brokers[0], 4, "1")["configs"] if not config["name"].startswith("pelton.")}
    c.counts["describe"] += 1
    if own - kafkas != NOT_KAFKAS:
        c.bad.append(f"describe: broker settings that Kafka does not have: {sorted(own - kafkas ^ NOT_KAFKAS)}")
    for key in ("broker.id", "node.id", "default.replication.factor", "process.roles", "num.partitions", "log.retention.bytes",
                "message.max.bytes", "offsets.topic.replication.factor", "transaction.state.log.min.isr"):
        def value(broker):
            asked = c.ask(broker, "DescribeConfigs", 4, resources=[resource(4, "1", [key])], includeSynonyms=False,
                          includeDocumentation=False)["results"][0]
            return [(config["name"], config["value"], config["configType"]) for config in asked["configs"]]
        c.same(f"describe broker {key}", value)


def topic_defaults(c):
    create(c, topic("plain"))
    keys = [{config["name"] for config in described(c, broker, 2, "plain")["configs"] if not config["name"].startswith("pelton.")}
            for broker in c.brokers]
    c.same("topic-keys", lambda broker: sorted(keys[c.brokers.index(broker)]))
    for key in sorted(keys[1]):
        def one(broker):
            asked = c.ask(broker, "DescribeConfigs", 4, resources=[resource(2, "plain", [key])], includeSynonyms=False,
                          includeDocumentation=False)["results"][0]
            return asked["errorCode"], asked["configs"]
        c.same(f"topic-defaults {key}", one)


VALUES = {
    "cleanup.policy": ["", " ", "delete", "compact,delete", "compact, delete", "compact,compact", "shred"],
    "compression.gzip.level": ["-1", "0", "1", "9", "10"],
    "compression.lz4.level": ["0", "1", "17", "18"],
    "compression.zstd.level": ["-131073", "-131072", "22", "23"],
    "compression.type": ["none", "uncompressed", "zstd", "ZSTD"],
    "delete.retention.ms": ["-1", "0"],
    "errors.deadletterqueue.group.enable": ["true", "yes"],
    "file.delete.delay.ms": ["-1", "0"],
    "flush.messages": ["0", "1"],
    "flush.ms": ["-1", "0"],
    "follower.replication.throttled.replicas": ["", "*", "0:1", "x"],
    "index.interval.bytes": ["-1", "0"],
    "internal.segment.bytes": ["100"],
    "local.retention.bytes": ["-3", "-2", "-1", "1000"],
    "local.retention.ms": ["-3", "-2", "-1", "1000", "999999999999"],
    "max.compaction.lag.ms": ["0", "1"],
    "max.decompressed.message.bytes": ["0", "1", "2147483639", "2147483640"],
    "max.message.bytes": ["-1", "0", "2147483648"],
    "message.format.version": ["3.0"],
    "message.timestamp.after.max.ms": ["-1", "0"],
    "message.timestamp.before.max.ms": ["-1", "0"],
    "message.timestamp.difference.max.ms": ["5"],
    "message.timestamp.type": ["CreateTime", "createtime"],
    "min.cleanable.dirty.ratio": ["-0.1", "0", "1", "1.1", "NaN"],
    "min.compaction.lag.ms": ["-1", "10"],
    "min.insync.replicas": ["0", "1", "2"],
    "pelton": ["1"],
    "preallocate": ["true", "TRUE", "yes"],
    "remote.copy.lag.bytes": ["-2", "-1", "0"],
    "remote.copy.lag.ms": ["-2", "-1", "5"],
    "remote.log.copy.disable": ["true"],
    "remote.log.delete.on.disable": ["true"],
    "remote.storage.enable": ["false", "true"],
    "retention.bytes": ["-5", "-1", "9223372036854775808"],
    "retention.ms": ["-2", "-1", " 5 ", "+5", "1e3", ""],
    "segment.bytes": ["14", "1048575", "1048576"],
    "segment.index.bytes": ["3", "4"],
    "segment.jitter.ms": ["-1", "0"],
    "segment.ms": ["0", "1"],
    "unclean.leader.election.enable": ["true"],
}


def topic_values(c):
    def check(**configs):
        what = "topic-values " + " ".join(f"{key.replace('_', '.')}={value}" for key, value in configs.items())
        def code(broker):
            made = c.ask(broker, "CreateTopics", 7, topics=[topic("checked", **configs)], validateOnly=True)
            return made["topics"][0]["errorCode"]
        c.same(what, code)
    for key, values in VALUES.items():
        for value in values:
            check(**{key: value})
    check(min_compaction_lag_ms="10", max_compaction_lag_ms="5")


def names(c):
    for name in ("__", "__canary", "__consumer_offsets2", "_schemas", "a.b", ".", "..", "", "a b", "x" * 249, "x" * 250,
                 "__cluster_metadata", "__consumer_offsets", "__share_group_state"):
        def code(broker):
            made = c.ask(broker, "CreateTopics", 7, topics=[topic(name)], validateOnly=True)
            return made["topics"][0]["errorCode"] != 0
        c.same(f"names {name}" if len(name) < 30 else f"names of {len(name)}", code)
    create(c, topic("__canary"))
    c.same("names produce", lambda broker: c.ask.produce(broker, "__canary", "none", [5]))
    c.request("names delete", "DeleteTopics", 6, timeoutMs=10_000,
              topics=[{"name": "__canary", "topicId": "AAAAAAAAAAAAAAAAAAAAAA"}])


def alter(c):
    create(c, topic("altered"))
    def change(what, *changes, kind=2, name="altered", old=False):
        def code(broker):
            configs = [{"name": key, "configOperation": operation, "value": value} for key, operation, value in changes]
            asked = [{"resourceType": kind, "resourceName": name, "configs": configs}]
            return c.ask(broker, "IncrementalAlterConfigs", 1, resources=asked)["responses"][0]["errorCode"]
        def shown(broker):
            configs = described(c, broker, 2, "altered")["configs"]
            return [config["value"] for config in configs if config["name"] in ("retention.ms", "cleanup.policy")]
        c.same(f"alter {what}", code, shown)
    SET, DELETE, APPEND, SUBTRACT = range(4)
    change("delete unknown", ("no.such", DELETE, None), ("retention.ms", SET, "777"))
    change("delete unknown with value", ("no.such", DELETE, "1"), ("", DELETE, None))
    change("set unknown", ("no.such", SET, "1"), ("retention.ms", SET, "778"))
    change("append unknown", ("no.such", APPEND, "1"))
    change("subtract unknown", ("no.such", SUBTRACT, "1"))
    change("append number", ("retention.ms", APPEND, "5"))
    change("append list", ("cleanup.policy", APPEND, "compact"))
    change("subtract list", ("cleanup.policy", SUBTRACT, "compact"))
    change("null", ("retention.ms", SET, None))
    change("twice", ("a", DELETE, None), ("a", DELETE, None))
    change("unknown operation", ("retention.ms", 7, "5"))
    change("nothing")
    change("unknown topic", ("retention.ms", SET, "5"), name="nope")
    change("internal", ("retention.ms", SET, "604800000"), name="__consumer_offsets")
    change("unknown type", ("x", DELETE, None), kind=64, name="g")
    change("other broker", ("log.retention.ms", DELETE, None), kind=4, name="2")
    change("no broker", ("log.retention.ms", DELETE, None), kind=4, name="x")
    for what, kind, name, key, value in (("broker", 4, "1", "log.retention.ms", "777777777"),
                                         ("metrics", 16, "sub", "interval.ms", "5000"),
                                         ("group", 32, "g", "consumer.session.timeout.ms", "50000")):
        change(what, (key, SET, value), kind=kind, name=name)
        change(f"{what} delete", (key, DELETE, None), kind=kind, name=name)
    change("every broker delete", ("log.retention.ms", DELETE, None), kind=4, name="")
    change("logger", ("root", SET, "INFO"), kind=8, name="1")


def log_dirs(c):
    create(c, topic("sized", 2))
    for version in range(1, 5):
        def shape(broker):
            asked = [{"topic": "sized", "partitions": [0, 9]}, {"topic": "nope", "partitions": [0]}]
            answer = c.ask(broker, "DescribeLogDirs", version, topics=asked)
            dirs = answer["results"]
            known = [0 < d["usableBytes"] <= d["totalBytes"] for d in dirs] if version > 3 else []
            there = [os.path.isdir(os.path.join(d["logDir"], "sized-1")) for d in dirs]
            return answer, known, there, [os.path.isabs(d["logDir"]) for d in dirs]
        c.same(f"log-dirs v{version}", shape)


def produce(c):
    create(c, topic("copies", min_insync_replicas="2"), topic("dull"), topic("small", max_decompressed_message_bytes="1000"))
    for acks in (1, -1):
        c.same("produce copies", lambda broker: c.ask.produce(broker, "copies", "none", [5], acks))
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        if codec != "none":
            c.same(f"produce dull {codec}", lambda broker: c.ask.produce(broker, "dull", codec, [15_000_000]))
        # 993 bytes of value are a record of 1000.
        for values in ([993], [994], [900, 2000, 5, 3000], [2000]):
            c.same(f"produce small {codec}", lambda broker: c.ask.produce(broker, "small", codec, values))
    c.same("produce internal", lambda broker: c.ask.produce(broker, "__consumer_offsets", "none", [5])[0])


API_VERSIONS = 18


def nothing(c):
    """Requests that ask for nothing, in all versions that pelton offers."""
    software = {"clientSoftwareName": "ask", "clientSoftwareVersion": "1"}
    offered = c.ask(c.brokers[0], "ApiVersions", 5, **software)["apiKeys"]
    for api in offered:
        if api["apiKey"] == API_VERSIONS:
            continue
        for version in range(api["minVersion"], api["maxVersion"] + 1):
            # A broker, not a client, adds several transactions at once: version 4 and later of AddPartitionsToTxn.
            what = f"nothing {api['apiKey']}" + (" of brokers" if api["apiKey"] == 24 and version > 3 else "")
            c.same(what, lambda broker: c.ask(broker, api["apiKey"], version))


CASES = [versions, acls, reassignments, elections, quorum, quotas, features, resources, describe, topic_defaults, topic_values,
         names, alter, log_dirs, produce, nothing]


def main():
    wanted = set(sys.argv[1:])
    unknown = wanted - {case.__name__ for case in CASES}
    if unknown:
        sys.exit(f"unknown case {' '.join(unknown)}: one of {' '.join(case.__name__ for case in CASES)}")
    with servers.pair() as (pelton, kafka):
        ask = Ask()
        c = Comparison(ask, pelton, kafka)
        # The broker's own topics are there once a group was asked for.
        for broker in c.brokers:
            servers.until(lambda: ask(broker, "FindCoordinator", 4, keyType=0, coordinatorKeys=["g"])["coordinators"][0]["errorCode"] == 0,
                          "a group coordinator")
        for case in CASES:
            if not wanted or case.__name__ in wanted:
                case(c)
        ask.stop()
    print(", ".join(f"{what} {count}" for what, count in c.counts.items()))
    gone = [] if wanted else sorted(set(DIFFERENT) - c.met)
    for line in [*c.bad, *(f"{what}: no difference any more, or the case is gone: take it off the list" for what in gone)]:
        print("FAIL", line)
    print(f"{sum(c.counts.values())} comparisons, {len(c.met)} meant to differ, {len(c.bad) + len(gone)} failed")
    sys.exit(1 if c.bad or gone else 0)


if __name__ == "__main__":
    main()
