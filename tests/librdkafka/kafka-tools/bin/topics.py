"""kafka-topics.sh --bootstrap-server B (--create|--alter|--delete) --topic T [--partitions N] [--config K=V]…"""
import argparse

from kafka import KafkaAdminClient

parser = argparse.ArgumentParser()
parser.add_argument("--bootstrap-server", required=True)
parser.add_argument("--topic", required=True)
parser.add_argument("--partitions", type=int, default=-1)
parser.add_argument("--replication-factor", type=int, default=-1)
parser.add_argument("--config", action="append", default=[])
for action in ("create", "alter", "delete"):
    parser.add_argument(f"--{action}", action="store_true")
args = parser.parse_args()
admin = KafkaAdminClient(bootstrap_servers=args.bootstrap_server)
if args.create:
    admin.create_topics({args.topic: {"num_partitions": args.partitions, "replication_factor": args.replication_factor,
                                      "configs": dict(c.split("=", 1) for c in args.config)}})
elif args.alter:
    admin.create_partitions({args.topic: args.partitions})
elif args.delete:
    admin.delete_topics([args.topic])
admin.close()
