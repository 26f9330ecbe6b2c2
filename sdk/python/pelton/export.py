"""From a class to the exports of its world."""

from .partition import Partitioner
from .transform import Fatal, Rejected, Retry, Transform, reason


def export(plugin):
    """The class that pelton's world asks for, of a `Transform` or a `Partitioner`: `WitWorld = pelton.export(Shout)`.
    Without pelton, as in unit tests, there is no world and this is None."""
    try:
        import wit_world
    except ModuleNotFoundError:
        return None
    if issubclass(plugin, Transform):
        return _transform(wit_world.WitWorld, plugin)
    if issubclass(plugin, Partitioner):
        return _partitioner(wit_world.WitWorld, plugin)
    raise TypeError(f"{plugin.__name__} must be a pelton.Transform or a pelton.Partitioner")


def _configure(instance, config):
    from componentize_py_types import Err

    try:
        instance.configure(dict(config))
    except Exception as error:
        raise Err(str(error) or type(error).__name__) from error


def _transform(world, plugin):
    from componentize_py_types import Err
    from wit_world.imports.records import Failure_Fatal, Failure_Reject, Failure_Retry, Rejection

    instance = plugin()

    class Exported(world):
        def configure(self, config):
            _configure(instance, config)

        def process(self, b):
            try:
                return instance.batch(b)
            except Rejected as error:
                raise Err(Failure_Reject([Rejection(i, why) for i, why in error.rejections])) from error
            except Retry as error:
                raise Err(Failure_Retry(reason(error))) from error
            except Fatal as error:
                raise Err(Failure_Fatal(reason(error))) from error

    return Exported


def _partitioner(world, plugin):
    instance = plugin()

    class Exported(world):
        def configure(self, config):
            _configure(instance, config)

        def partition(self, b, partitions):
            return instance.batch(b, partitions)

    return Exported
