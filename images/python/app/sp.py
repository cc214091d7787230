import subprocess, sys, time, threading, hashlib
code="import hashlib,threading\nr=[]\ndef f(n):\n  h=b'x'\n  for i in range(20000): h=hashlib.sha256(h+bytes([n])).digest()\n  r.append((n,h.hex()[:8]))\nts=[threading.Thread(target=f,args=(i,)) for i in range(3)]\n[t.start() for t in ts];[t.join() for t in ts]\nprint(sorted(r))"
def mine():
    global total
    for k in range(400000): total+=1
total=0
t0=time.time()
ps=[subprocess.Popen([sys.executable,"-c",code],stdout=subprocess.PIPE) for i in range(4)]
ths=[threading.Thread(target=mine) for i in range(2)]
[t.start() for t in ths]
outs=[p.communicate()[0] for p in ps]
[t.join() for t in ths]
print(len(set(outs))==1, outs[0][:40], [p.returncode for p in ps], total)
p=subprocess.Popen([sys.executable,"-u","-c","import sys\nfor l in sys.stdin: print(int(l)*2)"],stdin=subprocess.PIPE,stdout=subprocess.PIPE,text=True)
s=0
for i in range(200):
    p.stdin.write(f"{i}\n"); p.stdin.flush(); s+=int(p.stdout.readline())
p.stdin.close(); print(s, p.wait())
print("seconds", time.time()-t0, file=sys.stderr)
import concurrent.futures, multiprocessing as mp
