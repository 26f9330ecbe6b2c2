"""Calls each function of stores and timers once. Some values are orders: see cases.toml."""

import pelton


def text(value):
    return "null" if value is None else value.decode()


def shown(found):
    pairs, more = found
    listed = "".join(f"{key.decode() if isinstance(key, bytes) else key}={value.decode()}," for key, value in pairs)
    return listed + ("more" if more else "")


class Plugin(pelton.TimerTransform):
    def reads(self, record, reads):
        reads.key("s", "read ahead")

    def record(self, record, stores, timers, out):
        order = text(record.value)
        if order == "null":
            out.emit(record, value=";".join(self.each(record, stores, timers)))
            return
        if order == "stray":
            stores.get("nothing", "k")
        if order.startswith("put"):
            stores.put("s", record.key, order)
        if order.endswith("reject"):
            raise pelton.Reject("told to reject")
        if order == "timer":
            timers.set(pelton.WALL_CLOCK, record.key, 100)
        out.keep(record)

    def each(self, record, stores, timers):
        for key in ("a/1", "a/2", "b/1", "b/2"):
            stores.put("s", key, key)
        stores.put("s", "empty", "")
        stores.delete("s", "a/1")
        yield shown(stores.prefix("s", "a/"))
        yield shown(stores.range("s", "a/2", "b/2", reverse=True))
        yield shown(stores.range("s", limit=1))
        yield str(stores.delete_range("s", "b/", "b/9", limit=1)).lower()
        yield text(stores.get("s", "b/1"))
        yield text(stores.get("s", "b/2"))
        yield text(stores.get("s", "empty"))
        for start in (10, 20, 95):
            stores.put_window("w", record.key, start, str(start))
        first = stores.windows_of("w", record.key, 0, 19)
        stores.delete_window("w", record.key, 20)
        stores.put_window("w", record.key, 120, "last")
        yield text(stores.window("w", record.key, 10))
        yield text(stores.window("w", record.key, 95))
        yield shown(stores.windows_of("w", record.key, 0, 1000, reverse=True, limit=1))
        yield shown(first)
        timers.set(pelton.STREAM_TIME, "x", 9000)
        timers.set(pelton.STREAM_TIME, "x", 5000)
        timers.set(pelton.STREAM_TIME, "y", 6000)
        timers.cancel(pelton.STREAM_TIME, "y")
        timers.set(pelton.WALL_CLOCK, "w", timers.clock() + 100)
        yield str(timers.clock())

    def fire(self, timer, stores, timers, emit):
        if timer.name == b"bad":
            raise pelton.Reject("told to fail")
        domain = "stream" if timer.domain == pelton.STREAM_TIME else "clock"
        emit.record(timer.name, domain, timer.at, headers=[("at", str(timer.at)), ("null", None)], to=1)


WitWorld = pelton.export(Plugin)
