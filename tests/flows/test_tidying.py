"""Old results go with their starts; young ones, and experiments, stay."""

import time

from flows.core import tidying
from flows.core.repository import Repository
from flows.core.tidying import KEEP
from flows.core.work import JOBS, STARTS


def test_only_what_is_old_goes(repository: Repository) -> None:
    repository.fetch("refs/heads/*")
    base, now = repository.sha("refs/heads/main"), time.time()
    old, young = (
        repository.commit(base, [base], {}, name, int(when)) for name, when in (("old", now - KEEP - 9), ("new", now))
    )
    stay = {
        f"{JOBS}/b/1": young,
        f"{JOBS}/c/2": young,
        f"{STARTS}/b/x": base,
        f"{STARTS}/c/x": base,
        f"{STARTS}/never-done/x": base,
        "refs/exps/aa/bb/name": old,
    }
    go = {f"{JOBS}/a/1": old, f"{JOBS}/c/1": old, f"{STARTS}/a/x": base, f"{STARTS}/a/y": base}
    assert all(repository.create(stay | go).values())
    assert tidying.tidy(repository, now) == len(go)
    assert repository.refs("refs/lightvision/*", "refs/exps/*") == stay
    assert tidying.tidy(repository, now) == 0
