"""What a server says that will take commands again soon is an outage, and nothing else is."""

from __future__ import annotations

import pytest
import redis

from promptmill import errors
from promptmill.redis_link import translated

SAID = (
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "NOREPLICAS Not enough good replicas to write.",
    "MISCONF Errors writing to the AOF file: No space left on device",
    "OOM command not allowed when used memory > 'maxmemory'. script: 1b, on @user_script:4.",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "CLUSTERDOWN The cluster is down",
    "READONLY You can't write against a read only replica.",
)


@pytest.mark.parametrize("said", SAID)
def test_as_words(said: str) -> None:
    with pytest.raises(errors.RedisDown, match="PROMPTMILL_REDIS_URL"), translated("redis://h"):
        raise redis.ResponseError(said)


@pytest.mark.parametrize("said", SAID)
def test_as_the_client_reads_it(said: str) -> None:
    from redis._parsers.base import BaseParser

    with pytest.raises(errors.RedisDown), translated("redis://h"):
        raise BaseParser.parse_error(said)


@pytest.mark.parametrize(
    "said", ["BUSYGROUP Consumer Group name already exists", "WRONGTYPE Operation", "ERR OOMPH"]
)
def test_a_mistake_of_ours_stays_one(said: str) -> None:
    with pytest.raises(redis.ResponseError), translated("redis://h"):
        raise redis.ResponseError(said)
