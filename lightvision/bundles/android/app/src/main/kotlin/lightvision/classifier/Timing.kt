package lightvision.classifier

import kotlin.math.ceil
import kotlin.math.floor
import kotlin.math.pow

const val CONFIDENCE = 0.95
private const val NOISY = 0.1 // of the median, from which on an interval says that the device was busy

/** Milliseconds of single calls, in rounds; the interval is of the rounds' medians, by order statistics. */
class Timing(rounds: List<List<Double>>) {
    private val medians = rounds.map { middle(it.sorted(), 0.5) }.sorted()
    private val calls = rounds.flatten().sorted()
    private val outside = outside(medians.size)

    val median = middle(medians, 0.5)
    val low = medians[outside]
    val high = medians[medians.size - 1 - outside]
    val p95 = middle(calls, 0.95)
    val count = calls.size
    val rounds = medians.size
    val noisy = (high - low) / median > NOISY

    /** Between the two nearest, as numpy does. */
    private fun middle(sorted: List<Double>, share: Double): Double {
        val at = (sorted.size - 1) * share
        val below = sorted[floor(at).toInt()]
        return below + (sorted[ceil(at).toInt()] - below) * (at - floor(at))
    }

    /** How many of the sorted medians lie outside the interval, on either side. */
    private fun outside(count: Int): Int {
        var probability = 0.5.pow(count)
        var choices = 1.0
        var at = 0
        while (true) {
            choices = choices * (count - at) / (at + 1)
            val more = probability + choices * 0.5.pow(count)
            if (2 * more > 1 - CONFIDENCE) return at
            probability = more
            at++
        }
    }
}
