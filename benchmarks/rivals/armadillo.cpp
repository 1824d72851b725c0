// Armadillo's gmm_full and gmm_diag for ctypes. Its matrices are column-major: rows of NumPy are columns here, and nothing is copied.
#include <armadillo>
#include <chrono>
#include <cstdio>

template <typename Model, typename Covariances, typename T>
static double learn(T *data, int n, int d, int k, int steps, double *weights, double *means, double *covariances)
{
    const arma::Mat<T> X(data, d, n, false, true);
    const arma::mat m(means, d, k);
    const arma::rowvec w(weights, k);
    Covariances c(covariances);
    Model model;
    const auto begin = std::chrono::steady_clock::now();
    model.set_params(arma::conv_to<arma::Mat<T>>::from(m), c.value(d, k), arma::conv_to<arma::Row<T>>::from(w));
    // var_floor 0: as small as floating point allows.
    const bool done = model.learn(X, k, arma::eucl_dist, arma::keep_existing, 0, steps, T(0), false);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    for (int i = 0; i < k; ++i) weights[i] = model.hefts(i);
    for (int i = 0; i < k * d; ++i) means[i] = model.means(i);
    c.give(model);
    return done ? seconds.count() : -1;
}

template <typename T> struct Full {
    double *at;
    explicit Full(double *at) : at(at) {}
    arma::Cube<T> value(int d, int k) const { return arma::conv_to<arma::Cube<T>>::from(arma::cube(at, d, d, k)); }
    void give(const arma::gmm_priv::gmm_full<T> &m) const { std::copy(m.fcovs.begin(), m.fcovs.end(), at); }
};

template <typename T> struct Diag {
    double *at;
    explicit Diag(double *at) : at(at) {}
    arma::Mat<T> value(int d, int k) const { return arma::conv_to<arma::Mat<T>>::from(arma::mat(at, d, k)); }
    void give(const arma::gmm_priv::gmm_diag<T> &m) const { std::copy(m.dcovs.begin(), m.dcovs.end(), at); }
};

// The parameters are the start on entry and where it led on return. Returns seconds, or -1 where the library says it failed.
extern "C" double gmm(void *X, int single, int diag, int n, int d, int k, int steps, double *w, double *m, double *c)
{
    using arma::gmm_priv::gmm_diag;
    using arma::gmm_priv::gmm_full;
    if (single)
        return diag ? learn<gmm_diag<float>, Diag<float>>((float *)X, n, d, k, steps, w, m, c)
                    : learn<gmm_full<float>, Full<float>>((float *)X, n, d, k, steps, w, m, c);
    return diag ? learn<gmm_diag<double>, Diag<double>>((double *)X, n, d, k, steps, w, m, c)
                : learn<gmm_full<double>, Full<double>>((double *)X, n, d, k, steps, w, m, c);
}

extern "C" void version(char *text, int size)
{
    std::snprintf(text, size, "%d.%d.%d", ARMA_VERSION_MAJOR, ARMA_VERSION_MINOR, ARMA_VERSION_PATCH);
}
