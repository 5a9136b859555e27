"""The product's own code in a simulated world: one seed, one virtual clock, one scheduler.

Every thread of every process of a run (driver, folds, coordinator, a second driver) is a greenlet here that works until
it passes a seam: a file operation, a sleep, a lock, a call of Ray's, a request to a bucket or to W&B. The world then
decides by its seed what the call costs, who goes on, who dies or stands still, and which fault the call gets. A seed is
therefore a whole history, and gives the same one again.

The modules of `ray_jobs` and `trainers` run as they are, from what `run_kfold` does down to `os.write`; what stands
around them is simulated: `disk.py` (a file system that forgets what was not synced), `cluster.py` (Ray), `bucket.py`
(an object storage), `training.py` (a trainer whose state is a sum and every random generator). `checks.py` says what
must hold, `faults.py` what may happen. What sends a run's records to W&B runs, too, where a seed's run goes there:
`child.py` (processes and pipes), `wandb.py` (W&B's server and its client). After the run it is sent what it lacks.

What it leaves out:

- Threads of one process change places at seams only: a race between two statements without a seam between them, or of
  C code, is not found. Requests that a mirror sends to a bucket at once are sent one after another.
- Ray is what its documentation says: calls of one caller come in order and those of several in any, an actor that
  dies comes back and hears the calls that it had not answered once more, a driver's processes end within seconds after
  it. Placement, object store, elastic folds and folds of several ranks are not there.
- The disk is ext4's kind: whatever was done to names is kept in order, a sync keeps all of it up to there; data without
  a sync may be lost, cut or torn. Files have no permissions and no owners.
- W&B's client is what was measured of it: its own faults, its pages, pictures and tables as files are not there.
- Reading and checking the user's data, the report and its pictures, TensorBoard's files, tunings, further members.
- Nothing takes memory or time of a real machine: slowness is only what the clock says.
"""
