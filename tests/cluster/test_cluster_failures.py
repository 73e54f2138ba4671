"""Two replicas, nginx and PostgreSQL under load, as real processes: parts die, and nobody is told.

The tests are in the order in which they use up the cluster: the last one leaves only the standby.
"""

import itertools
import time
from collections import defaultdict

import httpx2
from pgserver import Server as Postgres
from replicas import Callers, Nginx, Replica, answered, calling, fresh
from sounds import voice_of

LONG, SHORT = voice_of("ann", 1, 16.0), voice_of("ann", 2, 3.0)
PAIR = {"files": [("audio", ("a.wav", SHORT)), ("audio", ("b.wav", voice_of("bob", 1, 3.0)))]}
names = (f"speaker-{number}" for number in itertools.count())


def new_speaker(client: httpx2.Client) -> str:
    name = next(names)
    answered(client.post("/v1/speakers", json={"id": name}))
    answered(client.post(f"/v1/speakers/{name}/enrollments", content=fresh(LONG)))
    return name


class Traffic:
    """Every kind of call by turns on some speakers, and what was acknowledged of what they changed."""

    def __init__(self, client: httpx2.Client, speakers: int = 3) -> None:
        self.speakers = [new_speaker(client) for _ in range(speakers)]
        self.enrolled: dict[str, list[str]] = defaultdict(list)
        self._turn = itertools.count()
        self._before = {name: enrollments(client, name) for name in self.speakers}

    def __call__(self, client: httpx2.Client) -> httpx2.Response:
        turn = next(self._turn)
        speaker = f"/v1/speakers/{self.speakers[turn % len(self.speakers)]}"
        match turn % 4:
            case 0:
                return client.post(f"{speaker}/verify", content=fresh(SHORT))
            case 1:
                return client.post("/v1/identify", content=fresh(SHORT))
            case 2:
                return client.post("/v1/compare", **PAIR)
        answer = client.post(f"{speaker}/enrollments", content=fresh(SHORT))  # and no key of its own
        if answer.status_code == 201:
            self.enrolled[speaker.rpartition("/")[2]].append(answer.json()["enrollment"]["id"])
        return answer

    def check(self, client: httpx2.Client, all_answered: bool = True) -> None:
        """What was acknowledged is there; if every call was answered nothing else is, so nothing twice."""
        assert sum(map(len, self.enrolled.values())) > 0
        for name in self.speakers:
            there = enrollments(client, name)
            told = self._before[name] + self.enrolled[name]
            assert set(told) <= set(there), name
            if all_answered:
                assert sorted(there) == sorted(told)


def enrollments(client: httpx2.Client, speaker: str) -> list[str]:
    return [one["id"] for one in answered(client.get(f"/v1/speakers/{speaker}/enrollments"))["items"]]


def test_enrolled_on_one_it_is_verified_on_the_other_at_once(replicas: list[Replica], nginx: Nginx) -> None:
    for here, there in itertools.islice(itertools.cycle(itertools.permutations(replicas)), 6):
        name = new_speaker(here.client)
        verified = answered(there.client.post(f"/v1/speakers/{name}/verify", content=fresh(SHORT)))
        assert verified["decision"] == "accept"
        found = answered(there.client.post("/v1/identify?top_k=100", content=fresh(SHORT)))
        assert name in [candidate["speaker_id"] for candidate in found["candidates"]]
        assert here.client.delete(f"/v1/speakers/{name}").status_code == 204
        gone = there.client.post(f"/v1/speakers/{name}/verify", content=fresh(SHORT))
        assert gone.json()["code"] == "speaker_not_found"
        again = answered(there.client.post("/v1/identify?top_k=100", content=fresh(SHORT)))
        assert name not in [candidate["speaker_id"] for candidate in again["candidates"]]
    name, heard = new_speaker(nginx.client), fresh(SHORT)
    verify = f"/v1/speakers/{name}/verify"
    assert answered(replicas[0].client.post(verify, content=heard))["decision"] == "accept"
    assert replicas[1].client.post(verify, content=heard).json()["code"] == "recording_replayed"


def test_a_killed_replica_fails_no_request(replicas: list[Replica], nginx: Nginx) -> None:
    traffic = Traffic(nginx.client)
    with calling(nginx.url, traffic, threads=4) as callers:
        for one in replicas:
            callers.wait_for(20)
            one.kill()
            callers.wait_for(20)
            one.start()
    assert callers.failures == []
    traffic.check(nginx.client)


def test_a_rolling_restart_fails_no_request(replicas: list[Replica], nginx: Nginx) -> None:
    traffic = Traffic(nginx.client)
    with calling(nginx.url, traffic, threads=4) as callers:
        for one in replicas:
            callers.wait_for(20)
            one.restart()
    assert callers.failures == []
    traffic.check(nginx.client)


def recovers(nginx: Nginx, callers: Callers) -> None:
    """Calls are answered again, by the processes there were."""
    until = time.monotonic() + 60
    while not nginx.client.post("/v1/compare", **PAIR).is_success:
        assert time.monotonic() < until, callers.failures[-1]
        time.sleep(0.1)
    failed = len(callers.failures)
    callers.wait_for(20)
    assert len(callers.failures) - failed <= 4  # what was under way


def told_to_try_again(failures: list[str]) -> None:
    for failure in failures:
        assert '"status":503' in failure, failure


def test_a_killed_database_loses_nothing_acknowledged(
    replicas: list[Replica], nginx: Nginx, primary: Postgres
) -> None:
    traffic, processes = Traffic(nginx.client), [one.process.pid for one in replicas]
    with calling(nginx.url, traffic, threads=4) as callers:
        callers.wait_for(24)
        primary.kill()
        callers.wait_for(8)
        primary.start()
        recovers(nginx, callers)
    told_to_try_again(callers.failures)
    traffic.check(nginx.client, all_answered=False)
    assert [one.process.pid for one in replicas] == processes
    assert all(one.process.poll() is None for one in replicas)


def test_a_promoted_standby_has_everything_acknowledged(
    replicas: list[Replica], nginx: Nginx, primary: Postgres, standby: Postgres
) -> None:
    traffic, processes = Traffic(nginx.client), [one.process.pid for one in replicas]
    with calling(nginx.url, traffic, threads=4) as callers:
        callers.wait_for(24)
        primary.kill()
        standby.boss("SELECT pg_promote()")
        standby.boss("ALTER SYSTEM RESET synchronous_standby_names")
        standby.boss("SELECT pg_reload_conf()")
        recovers(nginx, callers)
    told_to_try_again(callers.failures)
    traffic.check(nginx.client, all_answered=False)
    assert [one.process.pid for one in replicas] == processes
    new_speaker(nginx.client)
