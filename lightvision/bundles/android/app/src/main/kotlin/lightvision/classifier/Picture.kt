package lightvision.classifier

import android.content.ContentResolver
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.graphics.ColorSpace
import android.graphics.Matrix
import android.media.ExifInterface
import android.net.Uri
import android.os.Build
import java.io.IOException

private const val MOST_MEGAPIXELS = 50 // four bytes each are held while it is read
private const val ROWS = 64
private const val SHOWN = 1024 // pixels of the longer side of what is shown

/** There is no answer for this picture; what is told is a string resource with its arguments. */
class Unreadable(val told: Int, vararg val given: Any) : Exception()

/** From a picture's address to the pixels that the network was taught with. */
class Picture(private val resolver: ContentResolver, private val address: Uri) {
    private val bounds = BitmapFactory.Options().apply { inJustDecodeBounds = true }
    private val tag: Int

    init {
        decode(bounds)
        if (bounds.outWidth < 1 || bounds.outHeight < 1) throw Unreadable(R.string.no_picture)
        if (bounds.outWidth.toLong() * bounds.outHeight > MOST_MEGAPIXELS * 1_000_000L) {
            throw Unreadable(R.string.too_large, bounds.outWidth, bounds.outHeight, MOST_MEGAPIXELS)
        }
        tag = orientation()
    }

    /** RGB of size x size: upright, transparency on white, colour profiles not applied. */
    fun fitted(size: Int, fit: Fit): ByteArray {
        val bitmap = decoded(BitmapFactory.Options().apply { inPremultiplied = false })
        // colours as they are stored: Pillow does not convert them either
        if (Build.VERSION.SDK_INT >= 29 && bitmap.config == Bitmap.Config.ARGB_8888) { // deeper ones forbid it
            bitmap.setColorSpace(ColorSpace.get(ColorSpace.Named.SRGB))
        }
        try {
            val upright = Orientation(tag, bitmap.width, bitmap.height)
            val resampler = Resampler(upright.width, upright.height, size, fit)
            var top = resampler.first
            while (top < resampler.last) {
                val count = minOf(ROWS, resampler.last - top)
                resampler.take(upright.rows(top, count) { left, above, width, height ->
                    IntArray(width * height).also { bitmap.getPixels(it, 0, width, left, above, width, height) }
                }, count)
                top += count
            }
            return resampler.square()
        } catch (_: TooThin) {
            throw Unreadable(R.string.too_thin, bounds.outWidth, bounds.outHeight)
        } catch (_: OutOfMemoryError) {
            throw Unreadable(R.string.no_memory)
        } finally {
            bitmap.recycle()
        }
    }

    /** To be looked at: upright, and no larger than a screen needs. */
    fun shown(): Bitmap {
        var reduction = 1
        while (maxOf(bounds.outWidth, bounds.outHeight) / (reduction * 2) >= SHOWN) reduction *= 2
        val bitmap = decoded(BitmapFactory.Options().apply { inSampleSize = reduction })
        val turn = Matrix()
        if (tag in setOf(2, 4, 5, 7)) turn.postScale(-1f, 1f)
        turn.postRotate(mapOf(3 to 180f, 4 to 180f, 5 to 270f, 6 to 90f, 7 to 90f, 8 to 270f)[tag] ?: 0f)
        return if (turn.isIdentity) bitmap
        else Bitmap.createBitmap(bitmap, 0, 0, bitmap.width, bitmap.height, turn, true)
    }

    private fun decoded(options: BitmapFactory.Options): Bitmap {
        options.inPreferredConfig = Bitmap.Config.ARGB_8888
        try {
            return decode(options) ?: throw Unreadable(R.string.no_picture)
        } catch (_: OutOfMemoryError) {
            throw Unreadable(R.string.no_memory)
        }
    }

    private fun decode(options: BitmapFactory.Options): Bitmap? = try {
        resolver.openInputStream(address)?.use { BitmapFactory.decodeStream(it, null, options) }
    } catch (_: IOException) {
        throw Unreadable(R.string.no_picture)
    } catch (_: SecurityException) { // the one who lent it took it back
        throw Unreadable(R.string.no_picture)
    }

    private fun orientation(): Int = try {
        resolver.openInputStream(address)?.use { ExifInterface(it).getAttributeInt(ExifInterface.TAG_ORIENTATION, 1) } ?: 1
    } catch (_: IOException) { // a kind of file that has no such tag
        1
    }
}
