// Products of matrices in bfloat16 for training on processors with avx512_bf16: preload before OpenBLAS.
// g++ -O3 -march=native -shared -fPIC bfloat16_products.cpp -o bfloat16_products.so -ldnnl -ldl   (Debian: libdnnl-dev)
#include <oneapi/dnnl/dnnl.hpp>
#include <immintrin.h>
#include <dlfcn.h>
#include <map>
#include <tuple>
#include <vector>
#include <mutex>
#include <cstdlib>
#include <cstring>
using namespace dnnl;
typedef void (*gemm_t)(int,int,int,int,int,int,float,const float*,int,const float*,int,float,float*,int);
struct P { matmul m; memory a,b,c; };
static engine& eng(){ static engine e(engine::kind::cpu,0); return e; }
static bool use16 = !getenv("SHIM_F32");
static uint16_t* conv(const float*x, long rows,long cols,long ld, std::vector<uint16_t>&buf){
  if((long)buf.size()<rows*cols+64) buf.resize(rows*cols+64);
  uint16_t*o=buf.data();
  for(long r=0;r<rows;r++){ const float*s=x+r*ld; uint16_t*d=o+r*cols; long i=0;
    for(;i+32<=cols;i+=32){ __m512bh v=_mm512_cvtne2ps_pbh(_mm512_loadu_ps(s+i+16),_mm512_loadu_ps(s+i)); _mm512_storeu_si512((void*)(d+i),(__m512i)v);}    
    for(;i<cols;i++){ __m128 t=_mm_set_ss(s[i]); __m128bh v=_mm_cvtneps_pbh(t); d[i]=(uint16_t)_mm_extract_epi16((__m128i)v,0);} }
  return o; }
extern "C" void cblas_sgemm(int order,int ta,int tb,int M,int N,int K,float alpha,const float*A,int lda,const float*B,int ldb,float beta,float*C,int ldc){
  static gemm_t real=(gemm_t)dlsym(RTLD_NEXT,"cblas_sgemm");
  if(order!=101||alpha!=1.f||beta!=0.f||(double)M*N*K<2e6||M<16||N<16||K<16){ real(order,ta,tb,M,N,K,alpha,A,lda,B,ldb,beta,C,ldc); return; }
  typedef std::tuple<int,int,int,bool,bool,int,int,int> Key;
  static thread_local std::map<Key,P> cache; static thread_local stream st(eng()); static thread_local std::vector<uint16_t> ba,bb;
  bool at=ta!=111,bt=tb!=111;
  Key k{M,N,K,at,bt,ldc,use16?0:lda,use16?0:ldb};
  auto it=cache.find(k);
  if(it==cache.end()){
    long la=use16?(at?M:K):lda, lb=use16?(bt?K:N):ldb; auto dt=use16?memory::data_type::bf16:memory::data_type::f32;
    memory::desc da({M,K},dt, at?memory::dims{1,la}:memory::dims{la,1});
    memory::desc db({K,N},dt, bt?memory::dims{1,lb}:memory::dims{lb,1});
    memory::desc dc({M,N},memory::data_type::f32,memory::dims{ldc,1});
    matmul::desc d(da,db,dc); matmul::primitive_desc pd(d,eng());
    if(getenv("SHIM_SHOW")) fprintf(stderr,"%d %d %d %s\n",M,N,K,pd.impl_info_str());
    P p{matmul(pd),memory(da,eng(),nullptr),memory(db,eng(),nullptr),memory(dc,eng(),nullptr)};
    it=cache.emplace(k,p).first; }
  P&p=it->second;
  if(use16){ p.a.set_data_handle(at?conv(A,K,M,lda,ba):conv(A,M,K,lda,ba)); p.b.set_data_handle(bt?conv(B,N,K,ldb,bb):conv(B,K,N,ldb,bb)); }
  else { p.a.set_data_handle((void*)A); p.b.set_data_handle((void*)B); }
  p.c.set_data_handle(C);
  p.m.execute(st,{{DNNL_ARG_SRC,p.a},{DNNL_ARG_WEIGHTS,p.b},{DNNL_ARG_DST,p.c}}); st.wait();
}
