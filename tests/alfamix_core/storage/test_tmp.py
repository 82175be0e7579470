import threading,time,logging
from concurrent.futures import ThreadPoolExecutor
from alfamix_core.errors import ObjectExistsError
def test_x(s3_server):
    from alfamix_core.storage import open_store
    store=open_store("s3://alfamix/tt")
    store.create("z",b"")
    logging.basicConfig(filename="/tmp/sw/boto.log",level=logging.DEBUG,format="%(relativeCreated)d %(threadName)s %(name)s %(message).300s")
    for i in range(3):
        start=threading.Barrier(20)
        def create(n):
            start.wait(); t=time.time()
            try: store.create("lock.json", b"%d"%n); r="won"
            except ObjectExistsError: r=""
            return r, round(time.time()-t,2)
        t=time.time()
        with ThreadPoolExecutor(20) as p: print(list(p.map(create, range(20))))
        print(time.time()-t)
        store.delete("lock.json")
