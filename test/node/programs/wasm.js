// (module (memory (export "m") 1)
//   (func (export "load") (param i32) (result i32) local.get 0 i32.load)
//   (func (export "store") (param i32 i32) local.get 0 local.get 1 i32.store)
//   (func (export "fac") (param i64) (result i64) ... recursive)
//   (func (export "div") (param i32 i32) (result i32) local.get 0 local.get 1 i32.div_s))
const bytes = Buffer.from([
  0, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
  1, 22, 4, 0x60, 1, 0x7f, 1, 0x7f, 0x60, 2, 0x7f, 0x7f, 0, 0x60, 1, 0x7e, 1, 0x7e, 0x60, 2, 0x7f, 0x7f, 1, 0x7f,
  3, 5, 4, 0, 1, 2, 3,
  5, 4, 1, 1, 1, 3,
  7, 32, 5, 1, 0x6d, 2, 0, 4, 0x6c, 0x6f, 0x61, 0x64, 0, 0, 5, 0x73, 0x74, 0x6f, 0x72, 0x65, 0, 1, 3, 0x66, 0x61, 0x63, 0, 2, 3, 0x64, 0x69, 0x76, 0, 3,
  10, 49, 4,
  7, 0, 0x20, 0, 0x28, 2, 0, 0x0b,
  9, 0, 0x20, 0, 0x20, 1, 0x36, 2, 0, 0x0b,
  21, 0, 0x20, 0, 0x50, 0x04, 0x7e, 0x42, 1, 0x05, 0x20, 0, 0x20, 0, 0x42, 1, 0x7d, 0x10, 2, 0x7e, 0x0b, 0x0b,
  7, 0, 0x20, 0, 0x20, 1, 0x6d, 0x0b,
]);
const attempt = (what, f) => { try { console.log(what, f()); } catch (e) { console.log(what, e.constructor.name, e.message); } };
console.log('valid', WebAssembly.validate(bytes));
WebAssembly.instantiate(bytes).then(({ instance }) => {
  const x = instance.exports;
  console.log('fac', x.fac(20n));
  x.store(0, 42);
  x.store(65532, 7);
  console.log('load', x.load(0), x.load(65532));
  attempt('beyond by 1', () => x.load(65533));
  attempt('beyond by far', () => x.load(0x7ffffff0));
  attempt('the last address', () => x.store(-4, 1));
  attempt('store beyond', () => x.store(65536, 1));
  attempt('division by 0', () => x.div(1, 0));
  attempt('overflow', () => x.div(-2147483648, -1));
  attempt('recursion', () => x.fac(-1n));
  console.log('grow', x.m.grow(1), x.m.buffer.byteLength);
  x.store(65536, 9);
  console.log('grown', x.load(65536));
  attempt('grow beyond', () => x.m.grow(10));
  for (let i = 0, s = 0; i < 300000; i++) { x.store((i * 4) % 65536, i); s += x.load((i * 4) % 65536); if (i === 299999) console.log('sum', s); }
  attempt('beyond when compiled', () => x.load(131072));
}).catch((e) => console.log(e));
