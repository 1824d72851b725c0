# Called by mclust.py: Rscript mclust.R folder n d k model steps. Reads and writes doubles; matrices are column by column.
suppressMessages(library(mclust))
args <- commandArgs(trailingOnly = TRUE)
folder <- args[1]
n <- as.integer(args[2]); d <- as.integer(args[3]); k <- as.integer(args[4])
model <- args[5]; steps <- as.integer(args[6])

get <- function(name, size) readBin(file.path(folder, name), "double", size)
put <- function(name, values) writeBin(as.double(values), file.path(folder, name))
resident <- function(field) {
  line <- grep(field, readLines("/proc/self/status"), value = TRUE)
  as.numeric(gsub("[^0-9]", "", line)) * 1024
}

X <- matrix(get("X", n * d), n, d)
mean <- matrix(get("means", d * k), d, k)
sigma <- array(get("covariances", d * d * k), c(d, d, k))
variance <- list(modelName = model, d = d, G = k, sigma = sigma)
if (model == "VVV") variance$cholsigma <- array(apply(sigma, 3, chol), c(d, d, k))
if (model == "EEE") {
  variance$Sigma <- sigma[, , 1]
  variance$cholSigma <- chol(sigma[, , 1])
}
if (model == "VII") variance$sigmasq <- sigma[1, 1, ]
if (model == "VVI") {
  variance$scale <- sigma[1, 1, ]
  variance$shape <- matrix(1, d, k)
}
start <- list(pro = get("weights", k), mean = mean, variance = variance)
control <- emControl(tol = c(0, 0), itmax = c(steps, steps), eps = 0)

invisible(gc())
before <- resident("VmRSS")
cat("5", file = "/proc/self/clear_refs")
begin <- Sys.time()
fit <- em(data = X, modelName = model, parameters = start, control = control, warn = FALSE)
seconds <- as.numeric(Sys.time() - begin, units = "secs")
memory <- resident("VmHWM") - before

found <- fit$parameters
put("weights", found$pro)
put("means", found$mean)
put("covariances", found$variance$sigma)
put("about", c(seconds, memory))
cat(as.character(packageVersion("mclust")))
