"""Batch transform beyond one machine: where EYRIE_COMPUTE names a Ray cluster, a transform job's model runs there.

    control      starts `python -m eyrie.raydata` as the run of a job (adapters/transform_runs), as it does elsewhere
    __main__     the run: lists, cuts, writes, notes where it stands (eyrie.transform), and has the cluster asked
    cluster      connects, sends portions of the objects through Ray Data, takes their results in order
    portions     cuts objects into portions, each some payloads long: where they are, not what is in them
    answering    in the cluster's workers: fetches a portion, has the model in the process answer its payloads

The same payloads are cut and the same code of the model server answers them, so outputs have the same bytes as with
instances of one's own; the run keeps the same marks, so one that dies is taken up again. Needs `eyrie[ray]`, on every
node that works, with the model's framework.
"""
