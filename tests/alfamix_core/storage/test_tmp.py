import threading,time,pytest
from concurrent.futures import ThreadPoolExecutor
from alfamix_core.errors import ObjectExistsError
@pytest.mark.parametrize("expect",[True,False])
def test_x(s3_server,expect):
    from alfamix_core.storage import open_store
    store=open_store("s3://alfamix/tt")
    c=store._client()
    if not expect:
        c.meta.events.register_last("before-call.s3.PutObject",lambda params,**k: params["headers"].pop("Expect",None) and None)
    seen=[]
    c.meta.events.register("before-send.s3.PutObject",lambda request,**k: seen.append(request.headers.get("Expect")))
    for i in range(4):
        start=threading.Barrier(20)
        def create(n):
            start.wait()
            try: store.create("lock.json", b"%d"%n)
            except ObjectExistsError: pass
        t0=time.time()
        with ThreadPoolExecutor(20) as p: list(p.map(create, range(20)))
        print(expect, time.time()-t0, set(seen))
        store.delete("lock.json")
